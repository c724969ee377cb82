"""External experiments under any order of calls, against a model that knows only the contract.

After every step the database must agree with itself: events without gaps, legal moves only, counters that equal
recounts, budgets not overdrawn, and a best value that is the best of all that was told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from foretune.errors import BudgetExhausted, Conflict, ForetuneError, InvalidRequest, LeaseLost, NotFound
from foretune.events import EventType
from foretune.metrics import Goal
from foretune.states import ExperimentState, TrialState, check_experiment_move, check_trial_move
from foretune.wire.experiments import BudgetPatch, ExperimentPatch
from foretune.wire.trials import Decision
from service.db.tables import events, experiments, measurements, trials
from service.usecases import experiments as usecase
from service.usecases import upkeep

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

E, T = ExperimentState, TrialState
VALUES = st.one_of(st.integers(-20, 20).map(float), st.floats(-1e6, 1e6), st.none())


@dataclass
class ModelTrial:
    id: str
    leases: list[str] = field(default_factory=list)
    """All tokens that were given out, the valid one last."""
    state: TrialState = T.RUNNING
    curve: dict[int, float | None] = field(default_factory=dict)
    final: float | None = None
    losses: int = 0
    """In a row, without a new epoch in between."""

    @property
    def value(self) -> float | None:
        """The final value, or what the last epoch reported."""
        return self.final if self.final is not None else self.curve[max(self.curve)] if self.curve else None

    @property
    def told(self) -> list[float]:
        return [value for value in (*self.curve.values(), self.final) if value is not None]


class ExternalExperiment(RuleBasedStateMachine):
    """The service, and beside it what a careful client would expect."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.state = E.QUEUED
        self.trials: dict[str, ModelTrial] = {}
        self.gone = False

    @initialize(
        goal=st.sampled_from(Goal),
        max_trials=st.integers(1, 5),
        max_epochs=st.integers(1, 4),
        max_total_epochs=st.one_of(st.none(), st.integers(1, 12)),
        target_value=st.one_of(st.none(), st.integers(-10, 10).map(float)),
    )
    def submit(
        self, goal: Goal, max_trials: int, max_epochs: int, max_total_epochs: int | None, target_value: float | None
    ) -> None:
        self.goal, self.max_trials, self.max_epochs = goal, max_trials, max_epochs
        self.max_total_epochs, self.target = max_total_epochs, target_value
        self.id = self.world.submit(
            metric={"name": "score", "goal": goal.value},
            budget={
                "max_trials": max_trials,
                "max_epochs": max_epochs,
                "max_total_epochs": max_total_epochs,
                "target": target_value,
            },
        ).id

    def teardown(self) -> None:
        if not hasattr(self, "id") or self.gone:
            return
        with self.world.database.transaction() as tx:
            if not self.state.finished:
                usecase.cancel(tx, self.world.bus, self.world.project, self.id)
            usecase.delete(tx, self.world.project, self.id)

    # What the model expects.

    def of_state(self, state: TrialState) -> list[ModelTrial]:
        return [trial for trial in self.trials.values() if trial.state is state]

    def best(self) -> float | None:
        told = [value for trial in self.trials.values() for value in trial.told]
        return max(told, key=lambda value: self.goal.sign * value, default=None)

    def settle(self) -> None:
        """Ends the experiment where its budget says so."""
        best = self.best()
        epochs = sum(max(trial.curve, default=0) for trial in self.trials.values())
        reached = best is not None and self.target is not None and self.goal.sign * (best - self.target) >= 0
        if reached or (self.max_total_epochs is not None and epochs >= self.max_total_epochs):
            self.end_open(T.STOPPED)
            self.state = E.COMPLETED
        elif sum(trial.state.finished for trial in self.trials.values()) >= self.max_trials:
            self.state = E.COMPLETED
        if self.state is E.COMPLETED and best is None and (self.of_state(T.FAILED) or self.of_state(T.INFEASIBLE)):
            self.state = E.FAILED

    def end_open(self, state: TrialState) -> None:
        for trial in self.trials.values():
            if trial.state is T.QUEUED:
                trial.state = T.CANCELED
            elif not trial.state.finished:
                trial.state = state

    def lease_fault(self, trial: ModelTrial, lease: str) -> type[ForetuneError] | None:
        if self.gone:
            return NotFound
        if lease != trial.leases[-1]:
            return LeaseLost
        if trial.state.finished:
            return Conflict
        return None if trial.state is T.RUNNING else LeaseLost

    @contextmanager
    def expecting(self, fault: type[ForetuneError] | None) -> Iterator[None]:
        if fault is None:
            yield
        else:
            with pytest.raises(fault):
                yield

    def pick(self, data: st.DataObject) -> tuple[ModelTrial, str]:
        trial = data.draw(st.sampled_from(list(self.trials.values())))
        return trial, data.draw(st.one_of(st.just(trial.leases[-1]), st.sampled_from(trial.leases)))

    # What clients do.

    @rule(count=st.integers(1, 3))
    def ask(self, count: int) -> None:
        freed, room = self.of_state(T.QUEUED), self.max_trials - len(self.trials)
        fault: type[ForetuneError] | None = None
        if self.gone:
            fault = NotFound
        elif self.state in (E.PAUSED, E.CANCELED, E.FAILED):
            fault = Conflict
        elif self.state is E.COMPLETED or (not freed and not room):
            fault = BudgetExhausted
        with self.expecting(fault):
            given = self.world.ask(self.id, count)
            assert len(given) == min(count, len(freed) + room)
            oldest = [trial.id for trial in freed][:count]
            assert [one.id for one in given][: len(oldest)] == oldest
            for one in given:
                assert one.id in oldest or one.id not in self.trials
                trial = self.trials.setdefault(one.id, ModelTrial(one.id))
                trial.state = T.RUNNING
                trial.leases.append(one.lease.token)
            self.state = E.RUNNING

    @precondition(lambda self: self.trials)
    @rule(data=st.data(), reports=st.dictionaries(st.integers(1, 5), VALUES, min_size=1, max_size=3))
    def measure(self, data: st.DataObject, reports: dict[int, float | None]) -> None:
        trial, lease = self.pick(data)
        fault = self.lease_fault(trial, lease)
        if fault is None and max(reports) > self.max_epochs:
            fault = InvalidRequest
        with self.expecting(fault):
            answer = self.world.measure(trial.id, lease, reports)
            if not set(reports) <= set(trial.curve):
                trial.losses = 0
            trial.curve = {**reports, **trial.curve}
            self.settle()
            last = reports[max(reports)]
            stop = self.state.finished or last is None or max(trial.curve) == self.max_epochs
            assert answer.decision is (Decision.STOP if stop else Decision.CONTINUE)
            assert answer.lease.token == lease

    @precondition(lambda self: self.trials)
    @rule(
        data=st.data(),
        value=VALUES,
        outcome=st.sampled_from(["completed", "completed", "completed", "infeasible", "failed"]),
    )
    def complete(self, data: st.DataObject, value: float | None, outcome: str) -> None:
        trial, lease = self.pick(data)
        value = value if outcome == "completed" else None
        target = {"completed": T.COMPLETED, "infeasible": T.INFEASIBLE, "failed": T.FAILED}[outcome]
        fault = self.lease_fault(trial, lease)
        again = fault is Conflict and (
            (trial.state is target and value in (None, trial.value))
            or (trial.state is T.STOPPED and target is T.COMPLETED)
        )
        if again:
            fault = None
        elif fault is None and target is T.COMPLETED and value is None and trial.value is None:
            fault = InvalidRequest
        with self.expecting(fault):
            told = self.world.complete(trial.id, lease, outcome=outcome, value=value)
            if not again:
                trial.state, trial.final = target, value
                self.settle()
            assert (told.state, told.value) == (trial.state, trial.value)

    @precondition(lambda self: self.trials)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        trial, lease = self.pick(data)
        with self.expecting(self.lease_fault(trial, lease)):
            self.world.beat(trial.id, lease)

    @precondition(lambda self: self.of_state(T.RUNNING))
    @rule(data=st.data())
    def lose_a_client(self, data: st.DataObject) -> None:
        trial = data.draw(st.sampled_from(self.of_state(T.RUNNING)))
        self.world.let_lease_run_out(trial.id)
        upkeep.sweep(self.world.database, self.world.bus)
        trial.losses += 1
        trial.state = T.QUEUED
        if trial.losses == upkeep.MAX_ATTEMPTS:
            trial.state = T.FAILED
            self.settle()

    @rule()
    def sweep(self) -> None:
        upkeep.sweep(self.world.database, self.world.bus)

    @rule(verb=st.sampled_from(["pause", "pause", "resume", "resume", "resume", "cancel"]))
    def steer(self, verb: str) -> None:
        target = {"pause": E.PAUSED, "resume": E.RUNNING, "cancel": E.CANCELED}[verb]
        unchanged = self.state is target or (verb == "resume" and self.state is E.QUEUED)
        fault: type[ForetuneError] | None = NotFound if self.gone else None
        if fault is None and self.state.finished and not unchanged:
            fault = Conflict
        with self.expecting(fault), self.world.database.transaction() as tx:
            getattr(usecase, verb)(tx, self.world.bus, self.world.project, self.id)
        if fault is None and not unchanged:
            if verb == "cancel":
                self.end_open(T.CANCELED)
            self.state = target

    @rule(more=st.integers(-1, 2))
    def patch(self, more: int) -> None:
        fault: type[ForetuneError] | None = None
        if self.gone:
            fault = NotFound
        elif self.state.finished:
            fault = Conflict
        elif more < 0:
            fault = InvalidRequest
        wanted = self.max_trials + more
        if wanted < 1:
            return
        with self.expecting(fault), self.world.database.transaction() as tx:
            change = ExperimentPatch(budget=BudgetPatch(max_trials=wanted))
            usecase.patch(tx, self.world.bus, self.world.project, self.id, change)
        if fault is None:
            self.max_trials = wanted

    @precondition(lambda self: self.state.finished)
    @rule()
    def delete(self) -> None:
        with self.expecting(NotFound if self.gone else None), self.world.database.transaction() as tx:
            usecase.delete(tx, self.world.project, self.id)
        self.gone = True

    @precondition(lambda self: not self.state.finished)
    @rule()
    def delete_too_early(self) -> None:
        with self.expecting(Conflict), self.world.database.transaction() as tx:
            usecase.delete(tx, self.world.project, self.id)

    # What must hold after every step.

    @invariant()
    def the_service_agrees_with_the_model(self) -> None:
        if not hasattr(self, "id"):
            return
        if self.gone:
            assert self.rows() == 0
            return
        found = self.world.experiment(self.id)
        assert found.state is self.state
        assert found.progress.trials == Counter(trial.state.value for trial in self.trials.values())
        assert (found.best.value if found.best else None) == self.best()
        for one in self.world.trials(self.id):
            trial = self.trials[one.id]
            told = max(trial.told, key=lambda value: self.goal.sign * value, default=None)
            assert (one.state, one.value, one.best_value) == (trial.state, trial.value, told)
            assert one.epochs == max(trial.curve, default=0)
            assert one.seconds == len(trial.curve)
            assert one.attempts == len(trial.leases)

    @invariant()
    def counters_equal_recounts(self) -> None:
        if not hasattr(self, "id") or self.gone:
            return
        with self.world.database.transaction() as tx:
            row = tx.connection.execute(select(experiments).where(experiments.c.id == self.id)).one()
            states = tx.connection.execute(select(trials.c.state).where(trials.c.experiment_id == self.id)).scalars()
            counted = Counter(TrialState(state) for state in states)
            epochs = tx.connection.execute(
                select(func.coalesce(func.sum(trials.c.epochs), 0)).where(trials.c.experiment_id == self.id)
            ).scalar_one()
        assert row.trials_created == sum(counted.values()) <= row.max_trials
        assert row.trials_finished == sum(count for state, count in counted.items() if state.finished)
        assert row.trials_running == counted[T.RUNNING]
        assert row.trials_queued == counted[T.QUEUED]
        assert row.epochs == epochs
        assert (row.finished_at is not None) == self.state.finished

    @invariant()
    def the_log_tells_the_whole_story(self) -> None:
        """Replaying the events, each a legal move, leads to the present."""
        if not hasattr(self, "id") or self.gone:
            return
        log = self.world.events(self.id)
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        assert self.world.experiment(self.id).last_event == len(log)
        state = E(str(log[0].data["state"]))
        moves: dict[str, TrialState] = {}
        curves: dict[tuple[str, int], object] = {}
        best: object = None
        for event in log[1:]:
            trial_id = str(event.data.get("trial"))
            match event.type:
                case EventType.EXPERIMENT_STATE:
                    after = E(str(event.data["state"]))
                    check_experiment_move(state, after)
                    state = after
                case EventType.TRIAL_CREATED:
                    assert trial_id not in moves
                    moves[trial_id] = T.RUNNING
                case EventType.TRIAL_STATE:
                    check_trial_move(moves[trial_id], moved := T(str(event.data["state"])))
                    moves[trial_id] = moved
                case EventType.TRIAL_MEASUREMENT:
                    place = (trial_id, int(str(event.data["epoch"])))
                    assert place not in curves
                    assert moves[trial_id] is T.RUNNING
                    curves[place] = event.data["value"]
                case EventType.EXPERIMENT_BEST:
                    best = event.data["value"]
        assert state is self.state
        assert moves == {trial.id: trial.state for trial in self.trials.values()}
        assert curves == {
            (trial.id, epoch): value for trial in self.trials.values() for epoch, value in trial.curve.items()
        }
        assert best == self.best()

    def rows(self) -> int:
        """What is left of the experiment in any table."""
        with self.world.database.transaction() as tx:
            return sum(
                tx.connection.execute(
                    select(func.count()).select_from(table).where(table.c.experiment_id == self.id)
                ).scalar_one()
                for table in (trials, measurements, events)
            )


def check(world: World, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: ExternalExperiment(world),  # type: ignore[arg-type]
        settings=settings(max_examples=examples, stateful_step_count=steps),
    )


def test_any_order_of_calls(world: World) -> None:
    check(world, examples=15, steps=25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_very_many_orders_of_calls(world: World) -> None:
    check(world, examples=200, steps=60)
