"""Telling: measurements once each, decisions, leases, endings that may be repeated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, insert

from foretune.errors import Conflict, InvalidRequest, LeaseLost, NotFound
from foretune.events import EventType
from foretune.states import ExperimentState, TrialState
from foretune.wire.trials import Decision, MeasurementsRequest
from service.db.tables import stopping_thresholds
from service.usecases import reports, upkeep

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World


class TestMeasurements:
    def test_an_epoch_counts_once_whatever_is_said_later(self, world: World) -> None:
        """Given a client that repeats itself after a lost answer, the first report of each epoch stands."""
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        world.measure(trial.id, trial.lease.token, {1: 0.5, 2: 0.75})
        before = world.experiment(experiment.id)
        world.measure(trial.id, trial.lease.token, {1: 0.125, 2: 9.0})
        after = world.experiment(experiment.id)
        assert after.last_event == before.last_event
        assert (after.progress.epochs, after.best) == (before.progress.epochs, before.best)
        assert world.trial(trial.id).best_value == 0.75

    def test_what_is_no_number_is_kept_as_none(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        answer = world.measure(trial.id, trial.lease.token, {1: 0.5, 2: None})
        assert answer.decision is Decision.STOP
        told = world.trial(trial.id)
        assert (told.epochs, told.value, told.best_value, told.best_epoch) == (2, None, 0.5, 1)

    def test_metrics_and_seconds_are_kept(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        measured = [{"epoch": 1, "value": 0.5, "seconds": 2.5, "metrics": {"loss": 1.25}}]
        request = MeasurementsRequest.model_validate({"lease": trial.lease.token, "measurements": measured})
        world.report(trial.id, lambda ledger: reports.record(ledger, world.bus, trial.id, request))
        assert world.trial(trial.id).seconds == 2.5
        (told,) = [one for one in world.events(experiment.id) if one.type is EventType.TRIAL_MEASUREMENT]
        assert told.data["metrics"] == {"loss": 1.25}

    def test_the_last_epoch_of_the_budget_stops(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 2, "max_epochs": 2})
        (trial,) = world.ask(experiment.id)
        assert world.measure(trial.id, trial.lease.token, {1: 0.5}).decision is Decision.CONTINUE
        assert world.measure(trial.id, trial.lease.token, {2: 0.5}).decision is Decision.STOP
        assert world.trial(trial.id).state is TrialState.RUNNING

    def test_beyond_it_nothing_is_taken(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 2, "max_epochs": 2})
        (trial,) = world.ask(experiment.id)
        with pytest.raises(InvalidRequest, match="epoch 3 lies beyond the budget of 2 epochs") as caught:
            world.measure(trial.id, trial.lease.token, {1: 0.5, 3: 0.5})
        assert caught.value.errors[0].loc == ("body", "measurements", 1, "epoch")
        assert world.trial(trial.id).epochs == 0

    @pytest.mark.parametrize(("value", "state"), [(0.5, TrialState.RUNNING), (0.1, TrialState.STOPPED)])
    def test_who_falls_behind_is_stopped(self, world: World, value: float, state: TrialState) -> None:
        """Given a worker computed what a trial needs at epoch 2, a worse one ends there."""
        experiment = world.submit(stopping="median", budget={"max_trials": 2, "max_epochs": 9})
        (trial,) = world.ask(experiment.id)
        with world.database.transaction() as tx:
            row = {"experiment_id": experiment.id, "seq": 1, "thresholds": {"2": 0.25}}
            tx.connection.execute(insert(stopping_thresholds).values(row))
        assert world.measure(trial.id, trial.lease.token, {1: 0.0}).decision is Decision.CONTINUE
        stopped = state is TrialState.STOPPED
        assert world.measure(trial.id, trial.lease.token, {2: value}).decision is (
            Decision.STOP if stopped else Decision.CONTINUE
        )
        told = world.trial(trial.id)
        assert told.state is state
        assert told.reason == ("stopped early: behind the other trials at epoch 2" if stopped else None)
        if stopped:
            assert world.complete(trial.id, trial.lease.token).state is TrialState.STOPPED

    def test_the_target_ends_everything(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 9, "max_epochs": 9, "target": 0.75})
        first, second = world.ask(experiment.id, 2)
        assert world.measure(first.id, first.lease.token, {1: 0.75}).decision is Decision.STOP
        ended = world.experiment(experiment.id)
        assert (ended.state, ended.reason) == (ExperimentState.COMPLETED, "the target 0.75 is reached")
        assert world.trial(second.id).state is TrialState.STOPPED
        with pytest.raises(Conflict, match=r"the trial is STOPPED: the target 0\.75 is reached"):
            world.measure(second.id, second.lease.token, {1: 0.5})

    def test_one_report_is_a_handful_of_statements(self, world: World) -> None:
        """The hottest call of the service: whoever adds a statement to it must mean it."""
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        statements: list[str] = []

        def note(connection: object, cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        event.listen(world.database.engine, "before_cursor_execute", note)
        world.measure(trial.id, trial.lease.token, {1: 0.5})
        event.remove(world.database.engine, "before_cursor_execute", note)
        assert len(statements) <= 4, statements


class TestLeases:
    def test_every_sign_of_life_extends_it(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        answer = world.measure(trial.id, trial.lease.token, {1: 0.5})
        assert answer.lease.expires_at > trial.lease.expires_at
        beat = world.beat(trial.id, trial.lease.token)
        assert beat.lease.expires_at > answer.lease.expires_at
        assert beat.lease.token == trial.lease.token

    @pytest.mark.parametrize("token", ["1.x", "", "ü", "2.AAAAAAAAAAAAAAAA", "x" * 100])
    def test_a_wrong_token_writes_nothing(self, world: World, token: str) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        before = world.experiment(experiment.id)
        for act in (
            lambda: world.measure(trial.id, token or "-", {1: 0.5}),
            lambda: world.complete(trial.id, token or "-", value=0.5),
        ):
            with pytest.raises(LeaseLost, match="nothing was written"):
                act()
        assert world.experiment(experiment.id).last_event == before.last_event

    def test_an_old_holder_is_refused_and_the_new_one_is_not(self, world: World) -> None:
        experiment = world.submit()
        (first,) = world.ask(experiment.id)
        world.let_lease_run_out(first.id)
        upkeep.sweep(world.database, world.bus)
        (second,) = world.ask(experiment.id)
        assert second.id == first.id
        with pytest.raises(LeaseLost):
            world.measure(first.id, first.lease.token, {1: 0.5})
        assert world.measure(second.id, second.lease.token, {1: 0.25}).decision is Decision.CONTINUE
        assert world.trial(first.id).value == 0.25

    def test_a_managed_trial_is_its_workers(self, world: World, published: None) -> None:
        with pytest.raises(NotFound):
            world.measure("tri_unknown", "x", {1: 0.5})


class TestEndings:
    def test_the_same_ending_again_is_the_same_answer(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        first = world.complete(trial.id, trial.lease.token, value=0.5)
        before = world.experiment(experiment.id)
        assert world.complete(trial.id, trial.lease.token, value=0.5) == first
        assert world.experiment(experiment.id).last_event == before.last_event
        with pytest.raises(Conflict, match="the trial is COMPLETED; nothing was written") as caught:
            world.complete(trial.id, trial.lease.token, value=0.75)
        assert caught.value.code == "trial_finished"

    def test_two_at_once_cannot_both_win(self, world: World) -> None:
        """Given eight clients complete one trial with eight values at once, one of them did."""
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)

        def complete(value: float) -> float | None:
            try:
                return world.complete(trial.id, trial.lease.token, value=value).value
            except Conflict:
                return None

        with ThreadPoolExecutor(8) as clients:
            won = [value for value in clients.map(complete, map(float, range(8))) if value is not None]
        assert len(won) == 1
        assert world.trial(trial.id).value == won[0]
        endings = [one for one in world.events(experiment.id) if one.data.get("state") == "COMPLETED"]
        assert len(endings) == 1

    def test_without_any_value_there_is_nothing_to_complete(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        with pytest.raises(InvalidRequest, match="no measurement with a value was reported"):
            world.complete(trial.id, trial.lease.token)
        world.measure(trial.id, trial.lease.token, {1: 0.5})
        assert world.complete(trial.id, trial.lease.token).value == 0.5

    @pytest.mark.parametrize(("outcome", "state"), [("infeasible", "INFEASIBLE"), ("failed", "FAILED")])
    def test_a_bad_end_has_its_reason(self, world: World, outcome: str, state: str) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        told = world.complete(trial.id, trial.lease.token, outcome=outcome, reason="out of memory")
        assert (told.state, told.reason) == (state, "out of memory")
        assert told.finished_at is not None

    def test_a_final_value_may_be_the_best(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        world.measure(trial.id, trial.lease.token, {1: 0.5})
        world.complete(trial.id, trial.lease.token, value=0.75)
        best = world.experiment(experiment.id).best
        assert best is not None
        assert best.value == 0.75
