"""Work that waits for one experiment shares a transaction, and nobody suffers for another's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy import text

from foretune.errors import LeaseLost, NotFound
from foretune.events import EventType
from foretune.wire.trials import CompleteRequest, Suggestion
from service.db.ledger import Ledger
from service.usecases import reports
from tests.service.usecases.conftest import World, event_loop

if TYPE_CHECKING:
    from foretune.wire.trials import Trial
    from service.bus import Bus
    from service.db.session import Database
    from tests.conftest import Project

T = TypeVar("T")
Work = Callable[[Ledger], object]


@pytest.fixture
def world(database: Database, bus: Bus, project: Project) -> World:
    return World(database, bus, project.id)


@contextmanager
def locked(world: World, experiment_id: str) -> Iterator[None]:
    """Somebody else is at the experiment."""
    with (
        world.database.transaction() as tx,
        Ledger.of_experiment(tx, experiment_id, project=None, wake=None),
    ):
        yield


def started(work: Coroutine[object, object, T]) -> Future[T]:
    return asyncio.run_coroutine_threadsafe(work, event_loop())


def ending(trial: Suggestion, value: float = 1.0, lease: str | None = None) -> Callable[[Ledger], Trial]:
    request = CompleteRequest(lease=lease or trial.lease.token, value=value)
    return lambda ledger: reports.complete(ledger, trial.id, request)


def together(world: World, experiment_id: str, work: Sequence[tuple[str, Work]]) -> list[object]:
    """Results, or errors, of work on trials that came while somebody else was at the experiment."""
    with locked(world, experiment_id):
        waiting = [started(world.ledgers.on_trial(world.project, trial_id, one)) for trial_id, one in work]
        world.run(asyncio.sleep(0))
    return [one.exception() or one.result() for one in waiting]


def transactions(world: World, experiment_id: str) -> list[int]:
    """How many endings each transaction wrote, the first one first."""
    query = text(
        "SELECT count(*) FROM events WHERE experiment_id = :id AND type = :type AND data->>'state' = 'COMPLETED' "
        "GROUP BY xmin ORDER BY min(seq)"
    )
    with world.database.transaction() as tx:
        found = tx.connection.execute(query, {"id": experiment_id, "type": EventType.TRIAL_STATE.value})
        return [int(count) for count in found.scalars()]


def test_what_waits_is_done_in_one_transaction(world: World) -> None:
    """Given six clients, the first has its transaction, and the five that came behind it have one together."""
    experiment = world.submit(budget={"max_trials": 6, "max_epochs": 3})
    trials = world.ask(experiment.id, 6)
    for trial in trials:
        world.beat(trial.id, trial.lease.token)  # so that it is known whose trials these are
    done = together(world, experiment.id, [(one.id, ending(one, i)) for i, one in enumerate(trials)])
    assert [one.value for one in done] == [0, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert transactions(world, experiment.id) == [1, 5]
    log = world.events(experiment.id)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    assert log[-1].data["state"] == "COMPLETED", "the last ending ends the experiment"


def test_a_refusal_is_its_own_affair(world: World) -> None:
    experiment = world.submit(budget={"max_trials": 5, "max_epochs": 3})
    trials = world.ask(experiment.id, 4)
    for trial in trials:
        world.beat(trial.id, trial.lease.token)
    work: list[tuple[str, Work]] = [
        (trials[0].id, ending(trials[0])),
        (trials[1].id, ending(trials[1])),
        (trials[2].id, ending(trials[2], lease="1.stale")),
        (trials[3].id, ending(trials[3])),
    ]
    done = together(world, experiment.id, work)
    assert isinstance(done[2], LeaseLost)
    assert [world.trial(one.id).state.value for one in trials] == ["COMPLETED", "COMPLETED", "RUNNING", "COMPLETED"]
    assert transactions(world, experiment.id) == [1, 2]


@pytest.mark.parametrize("fault", [NotFound("no"), ZeroDivisionError()])
def test_what_failed_in_the_middle_leaves_nothing_behind(world: World, fault: Exception) -> None:
    """Given work that notes an event and then raises, the others' work is written and its own is not."""
    experiment = world.submit(budget={"max_trials": 5, "max_epochs": 3})
    trials = world.ask(experiment.id, 4)
    for trial in trials:
        world.beat(trial.id, trial.lease.token)

    def spoil(ledger: Ledger) -> None:
        ledger.event(EventType.WORKER_LOST, {"worker": "nobody"})
        raise fault

    work: list[tuple[str, Work]] = [(one.id, ending(one)) for one in trials]
    work.insert(2, (trials[0].id, spoil))
    done = together(world, experiment.id, work)
    assert done[2] is fault
    assert [world.trial(one.id).state.value for one in trials] == ["COMPLETED"] * 4
    assert not [event for event in world.events(experiment.id) if event.type is EventType.WORKER_LOST]


def test_two_at_one_trial_see_each_other(world: World) -> None:
    """Given a batch that holds the same epoch twice and two endings, each is there once."""
    experiment = world.submit(budget={"max_trials": 5, "max_epochs": 3})
    first, trial = world.ask(experiment.id, 2)
    for one in (first, trial):
        world.beat(one.id, one.lease.token)
    token = trial.lease.token

    def measure(ledger: Ledger) -> object:
        told = [{"epoch": 1, "value": 0.5}]
        request = reports.MeasurementsRequest.model_validate({"lease": token, "measurements": told})
        return reports.record(ledger, world.bus, trial.id, request)

    work: list[tuple[str, Work]] = [(first.id, ending(first)), (trial.id, measure), (trial.id, measure)]
    work += [(trial.id, ending(trial, 0.25)), (trial.id, ending(trial, 0.75))]
    done = together(world, experiment.id, work)
    assert done[3].value == 0.25  # type: ignore[attr-defined]
    assert isinstance(done[4], Exception)
    told = [event for event in world.events(experiment.id) if event.type is EventType.TRIAL_MEASUREMENT]
    assert len(told) == 1
    assert world.trial(trial.id).epochs == 1


def test_another_project_finds_nothing(world: World, other_project: Project) -> None:
    """Given a trial that this process has met, a key of another project still does not see it."""
    experiment = world.submit()
    (trial,) = world.ask(experiment.id)
    world.beat(trial.id, trial.lease.token)
    for project in (other_project.id, other_project.id):
        with pytest.raises(NotFound, match=trial.id):
            world.run(world.ledgers.on_trial(project, trial.id, ending(trial)))
    with pytest.raises(NotFound, match="tri_none"):
        world.run(world.ledgers.on_trial(world.project, "tri_none", ending(trial)))
    assert world.trial(trial.id).state.value == "RUNNING"


def test_experiments_do_not_wait_for_each_other(world: World) -> None:
    here, there = world.submit(), world.submit()
    (mine,), (other,) = world.ask(here.id), world.ask(there.id)
    with locked(world, here.id):
        waiting = started(world.ledgers.on_trial(world.project, mine.id, ending(mine)))
        assert world.run(world.ledgers.on_trial(world.project, other.id, ending(other))).value == 1.0
        assert not waiting.done()
    assert waiting.result().value == 1.0
