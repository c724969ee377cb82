"""Asking: freed trials first, then the desk's proposals, then quasi-random points; never more than the budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from foretune.errors import BudgetExhausted, Conflict, IdempotencyConflict, NotFound
from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from foretune.states import ExperimentState, TrialState
from foretune.wire.trials import SuggestionRequest, Suggestions
from service.usecases import experiments, suggestions, upkeep
from service.usecases.idempotency import Once

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World


def proposal(x: float) -> JsonObject:
    return {
        "configuration": {"lr": x, "layers": 1, "lr_schedule": {}},
        "origin": "gp",
        "predicted": {"median": 1.0, "low": 0.5, "high": 1.5},
        "replay": {"index": 0, "seed": 1},
    }


class TestProposals:
    def test_the_desks_proposal_becomes_the_trial(self, world: World) -> None:
        experiment = world.submit()
        with world.desk(lambda kind, payload: {"proposals": [proposal(0.5)]}):
            (trial,) = world.ask(experiment.id, 1, wait_s=10.0)
        assert trial.origin == "gp"
        assert trial.hyperparameters == {"lr": 0.5, "layers": 1}
        assert trial.predicted is not None
        assert (trial.predicted.metric, trial.predicted.high) == ("score", 1.5)
        assert world.trial(trial.id).predicted == trial.predicted

    def test_without_one_in_time_it_is_a_point_of_the_space(self, world: World) -> None:
        experiment = world.submit()
        given = world.ask(experiment.id, 3, wait_s=0.05)
        space = Space.from_json([parameter.__dict__ for parameter in experiment.space])
        for trial in given:
            assert trial.origin == "fallback"
            assert trial.lr_schedule is not None
            shape = trial.lr_schedule.model_dump(exclude={"peak", "values"})
            space.check({**trial.hyperparameters, "lr_schedule": shape})
        assert len({str(trial.hyperparameters) for trial in given}) == 3

    def test_a_desk_that_gives_too_few_is_helped_out(self, world: World) -> None:
        experiment = world.submit()
        with world.desk(lambda kind, payload: {"proposals": [proposal(0.5)]}):
            given = world.ask(experiment.id, 3, wait_s=10.0)
        assert [trial.origin for trial in given] == ["gp", "fallback", "fallback"]

    def test_a_desk_that_gives_too_many_is_cut_short(self, world: World) -> None:
        experiment = world.submit()
        with world.desk(lambda kind, payload: {"proposals": [proposal(x / 10) for x in range(1, 9)]}):
            assert len(world.ask(experiment.id, 2, wait_s=10.0)) == 2

    @pytest.mark.parametrize(
        "change", [{"configuration": None}, {"replay": []}, {"origin": 3}, {"origin": None}, "words", None]
    )
    def test_what_cannot_be_read_counts_as_not_said(self, world: World, change: JsonObject | str | None) -> None:
        experiment = world.submit()
        strange: JsonValue = {**proposal(0.7), **change} if isinstance(change, dict) else change
        with world.desk(lambda kind, payload: {"proposals": [strange, proposal(0.5)]}):
            given = world.ask(experiment.id, 2, wait_s=10.0)
        assert [trial.origin for trial in given] == ["gp", "fallback"]

    def test_a_trial_carries_its_lease_and_number(self, world: World) -> None:
        experiment = world.submit()
        first, second = world.ask(experiment.id, 2)
        assert (first.number, second.number) == (1, 2)
        assert first.lease.token.startswith("1.")
        assert first.lease.token != second.lease.token
        assert first.lease.expires_at > world.trial(first.id).created_at
        assert world.experiment(experiment.id).state is ExperimentState.RUNNING


class TestRefusals:
    def test_the_budget_is_the_end(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 2})
        assert len(world.ask(experiment.id, 5)) == 2
        with pytest.raises(BudgetExhausted, match=r"all 2 trials of the budget are out; raise budget\.max_trials"):
            world.ask(experiment.id)

    def test_a_managed_one_cannot_be_asked(self, world: World, published: None) -> None:
        with pytest.raises(Conflict, match="trained by our workers") as caught:
            world.ask(world.submit_managed().id)
        assert caught.value.code == "managed"

    @pytest.mark.parametrize(("verb", "code"), [("pause", "experiment_paused"), ("cancel", "experiment_finished")])
    def test_nor_one_that_does_not_run(self, world: World, verb: str, code: str) -> None:
        experiment = world.submit()
        with world.database.transaction() as tx:
            getattr(experiments, verb)(tx, world.bus, world.project, experiment.id)
        with pytest.raises(Conflict) as caught:
            world.ask(experiment.id)
        assert caught.value.code == code

    def test_nor_somebody_elses(self, world: World, strangers: World) -> None:
        with pytest.raises(NotFound):
            world.ask(strangers.submit().id)

    def test_time_that_is_over_ends_the_experiment(self, world: World) -> None:
        """Given the seconds of the budget have passed, asking ends it, and the end stays."""
        experiment = world.submit(budget={"max_trials": 4, "max_seconds": 60})
        (trial,) = world.ask(experiment.id)
        world.let_time_pass(experiment.id, 120)
        with pytest.raises(BudgetExhausted, match="the budget of 60 seconds is spent"):
            world.ask(experiment.id)
        ended = world.experiment(experiment.id)
        assert (ended.state, ended.reason) == (ExperimentState.COMPLETED, "the budget of 60 seconds is spent")
        assert world.trial(trial.id).state is TrialState.STOPPED


class TestFreed:
    def test_a_freed_trial_is_handed_out_first(self, world: World) -> None:
        experiment = world.submit()
        lost, kept = world.ask(experiment.id, 2)
        world.measure(lost.id, lost.lease.token, {1: 0.5})
        world.let_lease_run_out(lost.id)
        upkeep.sweep(world.database, world.bus)
        again, fresh = world.ask(experiment.id, 2)
        assert again.id == lost.id
        assert again.hyperparameters == lost.hyperparameters
        assert again.lease.token != lost.lease.token
        assert fresh.id not in (lost.id, kept.id)
        assert world.trial(lost.id).attempts == 2
        assert world.trial(lost.id).epochs == 1


class TestOnce:
    def test_the_same_key_gets_the_same_trials(self, world: World) -> None:
        experiment = world.submit()
        once = Once("key-1", "fingerprint")
        first, second = (ask_once(world, experiment.id, once) for _ in range(2))
        assert first == second
        assert world.column(experiment.id, "trials_created") == 1

    def test_four_at_once_with_one_key_get_the_same_trials(self, world: World) -> None:
        """Given an experiment with much room, so that asks are not looked up first and share a transaction."""
        experiment = world.submit(budget={"max_trials": 200, "max_epochs": 3})
        world.ask(experiment.id)
        once = Once("key-1", "fingerprint")

        def ask(_: int) -> Suggestions:
            return ask_once(world, experiment.id, once, wait_s=5.0)

        with world.desk(lambda kind, payload: {"proposals": [proposal(0.5)]}), ThreadPoolExecutor(4) as clients:
            first, *others = clients.map(ask, range(4))
        assert all(one == first for one in others)
        assert world.column(experiment.id, "trials_created") == 2

    def test_with_another_request_it_is_refused(self, world: World) -> None:
        experiment = world.submit()
        ask_once(world, experiment.id, Once("key-1", "fingerprint"))
        with pytest.raises(IdempotencyConflict):
            ask_once(world, experiment.id, Once("key-1", "another"))

    def test_a_refusal_is_not_remembered(self, world: World) -> None:
        """Given a paused experiment, the same call succeeds when it is resumed."""
        experiment = world.submit()
        for verb, fault in (("pause", Conflict), ("resume", None)):
            with world.database.transaction() as tx:
                getattr(experiments, verb)(tx, world.bus, world.project, experiment.id)
            if fault is None:
                assert ask_once(world, experiment.id, Once("key-1", "f")).trials
            else:
                with pytest.raises(fault):
                    ask_once(world, experiment.id, Once("key-1", "f"))


def ask_once(world: World, experiment_id: str, once: Once, wait_s: float = 0.0) -> Suggestions:
    request = SuggestionRequest(wait_seconds=wait_s)
    asked = suggestions.suggest(world.database, world.ledgers, world.bus, world.project, experiment_id, request, once)
    return world.run(asked)


class TestTogether:
    def test_many_clients_at_once_never_overdraw_the_budget(self, world: World) -> None:
        """Given six clients that ask at the same time for more than there is, each trial goes to one of them."""
        experiment = world.submit(budget={"max_trials": 20})

        def ask(_: int) -> list[str]:
            request = SuggestionRequest(count=3, wait_seconds=0)
            given = []
            for _round in range(4):
                asked = suggestions.suggest(
                    world.database, world.ledgers, world.bus, world.project, experiment.id, request
                )
                try:
                    given += [trial.id for trial in world.run(asked).trials]
                except BudgetExhausted:
                    break
            return given

        with ThreadPoolExecutor(6) as clients:
            given = [trial_id for one in clients.map(ask, range(6)) for trial_id in one]
        assert len(given) == len(set(given)) == 20
        numbers = [trial.number for trial in world.trials(experiment.id)]
        assert numbers == list(range(1, 21))
        settings = {str(trial.hyperparameters) for trial in world.trials(experiment.id)}
        assert len(settings) == 20, "no two clients get the same point"
