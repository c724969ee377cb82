"""An ending that asks for what comes next: told to the desk first, and then written together with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import String, cast, literal_column, select

from foretune.errors import LeaseLost
from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.states import ExperimentState, TrialState
from foretune.wire.trials import Completed, CompleteRequest
from service.db.tables import trials as trial_table
from service.usecases import experiments, next_trials
from service.usecases.idempotency import Once
from tests.service.usecases.test_suggestions import proposal

if TYPE_CHECKING:
    from foretune.wire.trials import Suggestion
    from tests.service.usecases.conftest import World

ROOMY: JsonObject = {"max_trials": 200, "max_epochs": 3}


class Desk:
    """Answers with ever new settings, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.opened = threading.Event()
        self.opened.set()

    def __call__(self, kind: str, payload: JsonObject) -> JsonObject:
        self.told.append(payload.get("told"))
        self.opened.wait(30.0)
        return {"proposals": [proposal(0.5 / len(self.told))]}


def end(
    world: World, trial: Suggestion, *, once: Once | None = None, wait_s: float = 10.0, **fields: object
) -> Completed:
    body = {"lease": trial.lease.token, "value": 0.5, **fields, "next": {"count": 1, "wait_seconds": wait_s}}
    request = CompleteRequest.model_validate(body)
    return world.run(
        next_trials.complete_and_suggest(
            world.database, world.ledgers, world.bus, world.project, trial.id, request, once
        )
    )


def following(ended: Completed) -> Suggestion:
    assert ended.next is not None
    (trial,) = ended.next.trials
    return trial


def revision(world: World, trial_id: str) -> str:
    """The transaction that wrote the trial last."""
    query = select(cast(literal_column("xmin"), String)).where(trial_table.c.id == trial_id)
    with world.database.transaction() as tx:
        return str(tx.connection.execute(query).scalar_one())


def test_both_are_one_transaction_and_the_desk_knew_of_the_ending(world: World) -> None:
    experiment, desk = world.submit(budget=ROOMY), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        world.measure(first.id, first.lease.token, {1: 0.75, 2: 0.25})
        ended = end(world, first, value=None)
        second = following(ended)
        third = following(end(world, second, value=0.9))
        last = following(end(world, third, value=None, outcome="infeasible", reason="out of memory"))
    assert (ended.state, ended.value, ended.best_value) == (TrialState.COMPLETED, 0.25, 0.75)
    assert desk.told == [
        None,
        {"trial": first.id, "state": "COMPLETED", "best_value": 0.75},
        {"trial": second.id, "state": "COMPLETED", "best_value": 0.9},
        {"trial": third.id, "state": "INFEASIBLE", "best_value": None},
    ]
    assert revision(world, third.id) == revision(world, last.id)
    assert [trial.number for trial in (first, second, third, last)] == [1, 2, 3, 4]
    log = world.events(experiment.id)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    told = [(event.type, event.data["trial"]) for event in log if event.data.get("trial") in (third.id, last.id)]
    assert told[-2:] == [(EventType.TRIAL_STATE, third.id), (EventType.TRIAL_CREATED, last.id)]


def test_an_ending_does_not_wait_for_a_desk_that_takes_long(world: World) -> None:
    experiment, desk = world.submit(budget=ROOMY), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        desk.opened.clear()
        answers: list[Completed] = []
        client = threading.Thread(target=lambda: answers.append(end(world, first)))
        client.start()
        try:
            while world.trial(first.id).state is TrialState.RUNNING:
                assert client.is_alive()
            assert not answers
        finally:
            desk.opened.set()
            client.join()
    assert following(answers[0]).origin == "gp"
    assert len(desk.told) == 2, "it was asked once"


def test_without_a_desk_it_is_a_point_of_the_space(world: World) -> None:
    experiment, desk = world.submit(budget=ROOMY), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
    ended = end(world, first, wait_s=0.3)
    assert (ended.state, following(ended).origin) == (TrialState.COMPLETED, "fallback")


def test_a_desk_that_nobody_understands_costs_no_ending(world: World) -> None:
    experiment, desk = world.submit(budget=ROOMY), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
    with world.desk(lambda kind, payload: {"proposals": [{"setting": {"lr": 0.5}}]}):
        ended = end(world, first)
    assert (ended.state, following(ended).origin) == (TrialState.COMPLETED, "fallback")


def test_what_is_refused_is_told_to_nobody_and_leases_nothing(world: World) -> None:
    experiment, desk = world.submit(budget=ROOMY), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        with pytest.raises(LeaseLost):
            end(world, first, lease="1.stale")
    assert desk.told == [None]
    assert len(world.trials(experiment.id)) == 1


@pytest.mark.parametrize("change", ["target", "pause"])
def test_the_ending_stands_where_the_experiment_gives_no_more(world: World, change: str) -> None:
    """Given it reaches its target, or was paused by somebody else: there is no next trial, and no error."""
    experiment, desk = world.submit(budget={**ROOMY, "target": 0.8}), Desk()
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        if change == "pause":
            with world.database.transaction() as tx:
                experiments.pause(tx, world.bus, world.project, experiment.id)
        ended = end(world, first, value=0.9 if change == "target" else 0.5)
    assert ended.next is not None
    assert (ended.state, ended.next.trials) == (TrialState.COMPLETED, [])
    assert world.trial(first.id).state is TrialState.COMPLETED
    wanted = ExperimentState.COMPLETED if change == "target" else ExperimentState.PAUSED
    assert world.experiment(experiment.id).state is wanted


def test_told_again_with_its_key_it_gets_the_same_trial(world: World) -> None:
    """Also where the answer to the first call was lost, and with it what this process remembers of the trial."""
    experiment, desk = world.submit(budget=ROOMY), Desk()
    once = Once("again", "fingerprint")
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        given = following(end(world, first, once=once))
        again = following(end(world, first, once=once))
        other_process = type(world)(world.database, world.bus, world.project)
        elsewhere = following(end(other_process, first, once=once))
    assert given.id == again.id == elsewhere.id
    assert given.lease.token == again.lease.token == elsewhere.lease.token
    assert len(world.trials(experiment.id)) == 2


def test_a_key_that_two_calls_use_at_once_gives_one_trial(world: World) -> None:
    """Given the second call came while the first one waited for the desk, both get what was written first."""
    experiment, desk = world.submit(budget=ROOMY), Desk()
    once = Once("again", "fingerprint")
    with world.desk(desk):
        (first,) = world.ask(experiment.id, wait_s=10.0)
        answers: list[Completed] = []
        clients = [threading.Thread(target=lambda: answers.append(end(world, first, once=once))) for _ in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert len({following(answer).id for answer in answers}) == 1
    assert len(answers) == 2
    assert len(world.trials(experiment.id)) == 2
