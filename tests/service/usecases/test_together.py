"""Everybody at once on one experiment: clients, a desk, upkeep and a person who steers. No deadlock, no lost update."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import select

from foretune.errors import BudgetExhausted, Conflict
from foretune.events import EventType
from foretune.states import TrialState, check_trial_move
from foretune.wire.experiments import BudgetPatch, ExperimentPatch
from foretune.wire.trials import CompleteRequest, SuggestionRequest
from service.db.tables import experiments as experiment_table
from service.db.tables import trials as trial_table
from service.usecases import experiments, next_trials, suggestions, upkeep
from tests.service.usecases.test_suggestions import proposal

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World


def ask(world: World, experiment_id: str, count: int) -> list[tuple[str, str]]:
    request = SuggestionRequest(count=count, wait_seconds=0)
    asked = suggestions.suggest(world.database, world.ledgers, world.bus, world.project, experiment_id, request)
    return [(trial.id, trial.lease.token) for trial in world.run(asked).trials]


def complete_and_ask(world: World, trial_id: str, lease: str, value: float) -> list[tuple[str, str]]:
    asked = {"count": 1, "wait_seconds": 5.0}
    request = CompleteRequest.model_validate({"lease": lease, "value": value, "next": asked})
    ended = next_trials.complete_and_suggest(
        world.database, world.ledgers, world.bus, world.project, trial_id, request, None
    )
    found = world.run(ended).next
    return [(trial.id, trial.lease.token) for trial in found.trials] if found is not None else []


def client(world: World, experiment_id: str, seed: int) -> list[tuple[str, float]]:
    """Asks and tells until the budget is spent; what it was told is kept."""
    chance = random.Random(seed)
    acknowledged: list[tuple[str, float]] = []
    while True:
        try:
            given = ask(world, experiment_id, chance.randint(1, 3))
        except BudgetExhausted:
            return acknowledged
        except Conflict:  # paused just now
            continue
        while given:
            trial_id, lease = given.pop()
            try:
                for epoch in (1, 2):
                    world.measure(trial_id, lease, {epoch: chance.random()})
                value = chance.random()
                if chance.random() < 0.5:
                    world.complete(trial_id, lease, value=value)
                else:
                    given += complete_and_ask(world, trial_id, lease, value)
                acknowledged.append((trial_id, value))
            except Conflict:  # its lease was taken away
                continue


def disturb(world: World, experiment_id: str, over: threading.Event) -> None:
    """Takes leases away, sweeps, pauses, resumes and raises the budget, until all is over."""
    chance = random.Random(0)
    budget = 260
    while not over.is_set():
        running = [trial.id for trial in world.trials(experiment_id) if trial.state is TrialState.RUNNING]
        if running and chance.random() < 0.5:
            world.let_lease_run_out(chance.choice(running))
        upkeep.sweep(world.database, world.bus)
        try:
            for verb in ("pause", "resume"):
                with world.database.transaction() as tx:
                    getattr(experiments, verb)(tx, world.bus, world.project, experiment_id)
            if budget < 270:
                budget += 1
                change = ExperimentPatch(budget=BudgetPatch(max_trials=budget))
                with world.database.transaction() as tx:
                    experiments.patch(tx, world.bus, world.project, experiment_id, change)
        except Conflict:  # it is finished
            return


def test_everybody_at_once(world: World) -> None:
    experiment_id = world.submit(budget={"max_trials": 260, "max_epochs": 3}).id
    settings = random.Random(0)
    over = threading.Event()
    desk = world.desk(lambda kind, payload: {"proposals": [proposal(settings.random())]})
    with desk, ThreadPoolExecutor(7) as threads:
        troublemaker = threads.submit(disturb, world, experiment_id, over)
        clients = [threads.submit(client, world, experiment_id, seed) for seed in range(6)]
        try:
            acknowledged = [told for one in clients for told in one.result()]
        finally:
            over.set()
        troublemaker.result()
    # Trials that were taken away in the last moment wait for a client.
    acknowledged += client(world, experiment_id, 99)
    check(world, experiment_id)
    values = {trial.id: trial.value for trial in world.trials(experiment_id)}
    assert len(acknowledged) > 130
    assert all(values[trial_id] == value for trial_id, value in acknowledged), "what was acknowledged is there"


def check(world: World, experiment_id: str) -> None:
    """The log has no gap, its moves are legal and lead to the present, and the counters equal a recount."""
    log = world.events(experiment_id)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    states: dict[str, TrialState] = {}
    epochs: Counter[tuple[object, object]] = Counter()
    for event in log:
        trial_id = str(event.data.get("trial"))
        if event.type is EventType.TRIAL_CREATED:
            assert trial_id not in states
            states[trial_id] = TrialState.RUNNING
        elif event.type is EventType.TRIAL_STATE:
            check_trial_move(states[trial_id], moved := TrialState(str(event.data["state"])))
            states[trial_id] = moved
        elif event.type is EventType.TRIAL_MEASUREMENT:
            epochs[trial_id, event.data["epoch"]] += 1
    assert set(epochs.values()) <= {1}
    with world.database.transaction() as tx:
        row = tx.connection.execute(select(experiment_table).where(experiment_table.c.id == experiment_id)).one()
        rows = tx.connection.execute(select(trial_table).where(trial_table.c.experiment_id == experiment_id)).all()
    assert {one.id: one.state for one in rows} == states
    counted = Counter(states.values())
    assert row.event_seq == len(log)
    assert row.trials_created == len(rows) <= row.max_trials
    assert row.trials_finished == sum(count for state, count in counted.items() if state.finished)
    assert (row.trials_running, row.trials_queued) == (counted[TrialState.RUNNING], counted[TrialState.QUEUED])
    assert row.epochs == sum(one.epochs for one in rows) == len(epochs)
    assert sorted(one.number for one in rows) == list(range(1, len(rows) + 1))
    assert row.best_value == max(one.best_value for one in rows if one.best_value is not None)
