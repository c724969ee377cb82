"""An experiment that nobody else wrote to is not read again; one that somebody did is, and no change is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from foretune.errors import Conflict, IdempotencyConflict, LeaseLost
from foretune.events import EventType
from service.db import ledger_memory
from service.db.ledger import Ledger
from service.settings import settings
from tests.service.usecases.conftest import World

if TYPE_CHECKING:
    from foretune.wire.experiments import Experiment
    from foretune.wire.trials import Suggestion
    from service.bus import Bus
    from service.db.session import Database
    from tests.conftest import Project


@pytest.fixture
def world(database: Database, bus: Bus, project: Project) -> World:
    return World(database, bus, project.id)


@pytest.fixture
def other(world: World) -> World:
    """Another API process, which remembers what it left itself."""
    return World(world.database, world.bus, world.project)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on whoever locks an experiment fails."""

    def refuse(*_: object, **__: object) -> Ledger:
        raise AssertionError("a lock was taken")

    monkeypatch.setattr(Ledger, "of_experiment", refuse)
    monkeypatch.setattr(Ledger, "of_trial", refuse)


def begun(world: World, count: int = 2, **changes: object) -> tuple[Experiment, list[Suggestion]]:
    """An experiment whose trials are known to this process."""
    budget = {"max_trials": 50, "max_epochs": 100, "max_total_epochs": None}
    experiment = world.submit(**{"budget": budget, **changes})  # type: ignore[arg-type]
    trials = world.ask(experiment.id, count)
    for trial in trials:
        world.beat(trial.id, trial.lease.token)
    return experiment, trials


def whole(world: World, experiment_id: str) -> None:
    """The log has no gap, and says of each trial what its row says."""
    log = world.events(experiment_id)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    ended = {event.data["trial"] for event in log if event.type is EventType.TRIAL_STATE}
    query = text("SELECT id FROM trials WHERE experiment_id = :id AND state <> 'RUNNING'")
    with world.database.transaction() as tx:
        assert ended == set(tx.connection.execute(query, {"id": experiment_id}).scalars())


def test_reports_and_endings_take_no_lock(world: World, request: pytest.FixtureRequest) -> None:
    experiment, (first, second) = begun(world)
    request.getfixturevalue("no_locks")
    for epoch in range(1, 4):
        for trial in (first, second):
            world.measure(trial.id, trial.lease.token, {epoch: epoch / 10})
    assert world.complete(first.id, first.lease.token, value=0.9).value == 0.9
    assert world.beat(second.id, second.lease.token).lease.token == second.lease.token
    assert world.experiment(experiment.id).best.value == 0.9  # type: ignore[union-attr]
    assert world.trial(second.id).epochs == 3
    whole(world, experiment.id)


def test_a_lease_is_dated_by_the_databases_clock(world: World, request: pytest.FixtureRequest) -> None:
    _, (trial, _) = begun(world)
    request.getfixturevalue("no_locks")
    time.sleep(0.3)
    until = world.beat(trial.id, trial.lease.token).lease.expires_at
    with world.database.transaction() as tx:
        now = tx.connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert abs(until - timedelta(seconds=settings().foretune_lease_s) - now) < timedelta(seconds=0.25)


def test_what_somebody_else_did_is_seen(world: World, other: World) -> None:
    """Given another process that ended the trial, or paused the experiment, this one refuses what it must."""
    experiment, (first, second) = begun(world)
    other.complete(first.id, first.lease.token, value=0.5)
    with pytest.raises(Conflict, match="COMPLETED"):
        world.measure(first.id, first.lease.token, {1: 0.1})
    other.measure(second.id, second.lease.token, {1: 0.7})
    world.measure(second.id, second.lease.token, {1: 0.2, 2: 0.8})
    assert world.trial(second.id).best_value == 0.8
    assert world.trial(second.id).epochs == 2
    whole(world, experiment.id)


def test_a_wrong_lease_is_refused(world: World) -> None:
    experiment, (first, second) = begun(world)
    with pytest.raises(LeaseLost):
        world.measure(first.id, second.lease.token, {1: 0.1})
    whole(world, experiment.id)


def test_who_waits_for_anothers_transaction_sees_what_it_did(world: World) -> None:
    """Given a lock that is held while the write without one comes, it waits, and writes nothing that is not true."""
    experiment, (first, second) = begun(world)
    waiting = threading.Thread(target=world.measure, args=(first.id, first.lease.token, {1: 0.3}))
    with (
        world.database.transaction() as tx,
        Ledger.of_experiment(tx, experiment.id, project=None, wake=None) as ledger,
    ):
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        ledger.event(EventType.WORKER_LOST, {"worker": "nobody"})
    waiting.join()
    world.measure(second.id, second.lease.token, {1: 0.4})
    assert [world.trial(one.id).value for one in (first, second)] == [0.3, 0.4]
    whole(world, experiment.id)


def test_an_answer_is_remembered_once(world: World, request: pytest.FixtureRequest) -> None:
    """Given two writes with one Idempotency-Key, the second writes nothing."""
    experiment, (first, second) = begun(world)

    def told(trial: Suggestion, value: float):  # type: ignore[no-untyped-def]
        def work(ledger: Ledger) -> int:
            ledger.add_answer("key", "mark", status=200, body=str(value))
            return ledger.event(EventType.WORKER_LOST, {"worker": trial.id})

        return work

    world.report(first.id, told(first, 1.0))
    with pytest.raises(IdempotencyConflict):
        world.report(second.id, told(second, 2.0))
    lost = [event.data["worker"] for event in world.events(experiment.id) if event.type is EventType.WORKER_LOST]
    assert lost == [first.id]


def test_after_an_encounter_memory_comes_back(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(ledger_memory, "_SHARED_S", 0.0)
    _, (first, second) = begun(world)
    other.beat(first.id, first.lease.token)
    for trial in (first, second):
        world.measure(trial.id, trial.lease.token, {1: 0.1})
    request.getfixturevalue("no_locks")
    for trial in (first, second):
        world.measure(trial.id, trial.lease.token, {2: 0.2})


@pytest.mark.parametrize("shared_s", [0.0, 0.05])
def test_two_processes_at_one_experiment_lose_nothing(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch, shared_s: float
) -> None:
    """Given two processes whose clients report at the same time, every epoch is there once, in a log without a gap."""
    monkeypatch.setattr(ledger_memory, "_SHARED_S", shared_s)
    experiment, trials = begun(world, 6)

    def train(number: int) -> None:
        trial, mine = trials[number], (world, other)[number % 2]
        for epoch in range(1, 21):
            mine.measure(trial.id, trial.lease.token, {epoch: epoch + number / 10})
        mine.complete(trial.id, trial.lease.token)

    with ThreadPoolExecutor(len(trials)) as clients:
        list(clients.map(train, range(len(trials))))
    whole(world, experiment.id)
    told = [
        (event.data["trial"], event.data["epoch"])
        for event in world.events(experiment.id)
        if event.type is EventType.TRIAL_MEASUREMENT
    ]
    assert sorted(told) == sorted((trial.id, epoch) for trial in trials for epoch in range(1, 21))
    found = world.experiment(experiment.id)
    assert found.progress.epochs == 120
    assert found.progress.trials == {"COMPLETED": 6}
    assert found.best is not None
    assert found.best.value == 20.5
