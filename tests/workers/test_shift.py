"""Shifts on real data: to the end, interrupted in every way, and two at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select

from foretune.events import EventType
from foretune.states import ExperimentState, TrialState
from foretune.wire.experiments import ExperimentPatch
from service.artifacts import ArtifactStore
from service.bus.names import QUEUE_TRAIN
from service.db.tables import datasets as dataset_table
from service.settings import settings
from service.usecases import experiments, shifts, trials, upkeep
from service.usecases.outcomes import Measured
from service.usecases.shifts import TrialReport, Verdict
from service.usecases.trials import Proposed

if TYPE_CHECKING:
    from tests.workers.conftest import Bench

E, T = ExperimentState, TrialState


class Died(BaseException):
    """A worker's sudden death: nothing catches it, nothing is handed back."""


def die() -> None:
    raise Died


class TestToTheEnd:
    def test_an_experiment_is_trained_as_submitted(
        self, bench: Bench, checkpoint_files: Callable[[], set[str]]
    ) -> None:
        experiment_id = bench.submit(parallelism=2)
        bench.work(experiment_id)
        experiment = bench.experiment(experiment_id)
        assert experiment.state is E.COMPLETED
        assert experiment.reason == "all 3 trials are done"
        assert experiment.progress.fraction == 1.0
        trials = bench.trials(experiment_id)
        assert [(trial.number, trial.state, trial.epochs) for trial in trials] == [
            (number, T.COMPLETED, 4) for number in (1, 2, 3)
        ]
        assert all(trial.seconds > 0 and trial.origin in ("default", "quasirandom") for trial in trials)
        values = [value for curve in bench.curves(experiment_id) for _, value, _ in curve]
        assert all(value is not None and 0.0 <= value <= 1.0 for value in values)
        assert experiment.best is not None
        assert experiment.best.value == max(value for value in values if value is not None) > 0.5
        assert bench.checkpoints_known() == checkpoint_files()
        assert len(checkpoint_files()) == 3

    def test_the_log_has_every_epoch_once(self, bench: Bench) -> None:
        experiment_id = bench.submit(parallelism=3)
        bench.work(experiment_id)
        log = bench.events(experiment_id)
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        measured = [
            (event.data["number"], event.data["epoch"]) for event in log if event.type is EventType.TRIAL_MEASUREMENT
        ]
        assert sorted(measured) == [(number, epoch) for number in (1, 2, 3) for epoch in (1, 2, 3, 4)]
        assert log[-1].data == {"state": "COMPLETED", "reason": "all 3 trials are done"}

    def test_neighbours_change_nothing(self, bench: Bench, undisturbed: list[object]) -> None:
        """Given three trials side by side, each is trained as it would be alone."""
        experiment_id = bench.submit(parallelism=3)
        bench.work(experiment_id)
        assert bench.curves(experiment_id) == undisturbed

    def test_the_target_ends_it_at_once(self, bench: Bench) -> None:
        experiment_id = bench.submit(budget={"max_trials": 3, "max_epochs": 50, "target": 0.3})
        bench.work(experiment_id)
        experiment = bench.experiment(experiment_id)
        assert (experiment.state, experiment.reason) == (E.COMPLETED, "the target 0.3 is reached")
        (trial,) = bench.trials(experiment_id)
        assert trial.state is T.STOPPED
        values = [value for _, value, _ in bench.curves(experiment_id)[0]]
        assert all(value is not None and value < 0.3 for value in values[:-1])

    def test_an_epoch_budget_is_kept_to_the_epoch(self, bench: Bench) -> None:
        experiment_id = bench.submit(budget={"max_trials": 3, "max_epochs": 4, "max_total_epochs": 6}, parallelism=1)
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).reason == "the budget of 6 epochs is spent"
        assert [trial.epochs for trial in bench.trials(experiment_id)] == [4, 2]

    def test_asha_stops_the_weak_ones(self, bench: Bench) -> None:
        experiment_id = bench.submit(
            # With a limit on all epochs each is reported at once, however quick it is, so that every rung is met.
            budget={"max_trials": 12, "max_epochs": 9, "max_total_epochs": 1000},
            stopping="asha",
            parallelism=4,
            space=[{"name": "learning_rate", "type": "float", "low": 1e-6, "high": 0.1, "log": True}],
        )
        bench.work(experiment_id)
        trials = bench.trials(experiment_id)
        stopped = [trial for trial in trials if trial.state is T.STOPPED]
        assert stopped
        assert all("stopped early" in (trial.reason or "") and trial.epochs < 9 for trial in stopped)
        assert {trial.state for trial in trials} == {T.STOPPED, T.COMPLETED}
        experiment = bench.experiment(experiment_id)
        assert experiment.best is not None
        assert experiment.best.value == max(trial.best_value or 0.0 for trial in trials)

    def test_a_stopped_trial_gives_its_slot_to_the_next(self, bench: Bench) -> None:
        """Within the shift: with one trial at a time, nothing else would ever end and call for the next."""
        experiment_id = bench.submit(
            budget={"max_trials": 12, "max_epochs": 9, "max_total_epochs": 1000},
            stopping="asha",
            space=[{"name": "learning_rate", "type": "float", "low": 1e-6, "high": 0.1, "log": True}],
        )
        bench.work(experiment_id)
        assert T.STOPPED in {trial.state for trial in bench.trials(experiment_id)}
        assert bench.experiment(experiment_id).state is E.COMPLETED


class TestInterrupted:
    @pytest.mark.parametrize("epochs", [1, 3, 6])
    def test_asked_to_stop_it_hands_back_and_the_next_goes_on(
        self, bench: Bench, undisturbed: list[object], epochs: int
    ) -> None:
        """Given a worker drains in the middle, the numbers are those of an undisturbed run, to the last bit."""
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(epochs))
        experiment = bench.experiment(experiment_id)
        assert experiment.state is E.RUNNING
        assert experiment.progress.trials.get("RUNNING", 0) == 0
        assert bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN] >= 1
        bench.work(experiment_id, bench.worker("wrk_second"))
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert bench.curves(experiment_id) == undisturbed

    def test_killed_it_costs_the_epochs_since_the_checkpoint_only(
        self, bench: Bench, undisturbed: list[object], checkpoint_files: Callable[[], set[str]]
    ) -> None:
        """Given a worker dies without a word, its lease frees the trial and nothing already told is told again."""
        experiment_id = bench.submit()
        with pytest.raises(Died):
            bench.work(experiment_id, bench.worker("wrk_first", {2: die}))
        (trial,) = bench.trials(experiment_id)
        assert (trial.state, trial.attempts) == (T.RUNNING, 1)
        bench.work(experiment_id, bench.worker("wrk_early"))
        assert [one.attempts for one in bench.trials(experiment_id)] == [1], "a leased trial is nobody else's"
        bench.let_leases_run_out()
        upkeep.sweep(bench.database, bench.bus)
        (trial,) = bench.trials(experiment_id)
        assert (trial.state, trial.reason) == (T.QUEUED, "its lease ran out")
        assert bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN] >= 1
        bench.work(experiment_id, bench.worker("wrk_second"))
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert bench.curves(experiment_id) == undisturbed
        assert [one.attempts for one in bench.trials(experiment_id)] == [2, 1, 1]
        lost = [event.data for event in bench.events(experiment_id) if event.type is EventType.WORKER_LOST]
        assert lost == [{"trial": trial.id, "number": 1, "worker": "wrk_first", "attempts": 1}]
        assert bench.checkpoints_known() <= checkpoint_files()

    def test_what_it_lost_while_cut_off_may_come_back_to_it(self, bench: Bench, undisturbed: list[object]) -> None:
        """Given leases ran out and upkeep freed the trials, a slot that is filled then may get one it still holds."""
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(2))
        with bench.database.transaction() as tx:
            experiments.patch(tx, bench.bus, bench.project, experiment_id, ExperimentPatch(parallelism=2))

        def cut_off() -> None:
            """Just before the first trial's slot is filled."""
            if [one.state for one in bench.trials(experiment_id)] == [T.COMPLETED, T.RUNNING]:
                bench.let_leases_run_out()
                upkeep.sweep(bench.database, bench.bus)

        bench.work(experiment_id, bench.worker("wrk_second", dict.fromkeys(range(3, 9), cut_off)))
        trials = bench.trials(experiment_id)
        assert [(one.state, one.reason) for one in trials] == [(T.COMPLETED, None)] * 3
        assert [one.attempts for one in trials] == [2, 2, 1]
        assert bench.curves(experiment_id) == undisturbed

    def test_paused_and_resumed(self, bench: Bench, undisturbed: list[object]) -> None:
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.worker("wrk_first", {2: lambda: bench.steer("pause", experiment_id)}))
        paused = bench.experiment(experiment_id)
        assert paused.state is E.PAUSED
        assert paused.progress.trials == {"QUEUED": 1}
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).progress.epochs == paused.progress.epochs > 0
        bench.steer("resume", experiment_id)
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert bench.curves(experiment_id) == undisturbed

    def test_canceled_it_keeps_what_was_measured(self, bench: Bench, checkpoint_files: Callable[[], set[str]]) -> None:
        experiment_id = bench.submit(parallelism=2)
        bench.work(experiment_id, bench.worker("wrk_first", {4: lambda: bench.steer("cancel", experiment_id)}))
        experiment = bench.experiment(experiment_id)
        assert (experiment.state, experiment.reason) == (E.CANCELED, "canceled by request")
        assert {trial.state for trial in bench.trials(experiment_id)} <= {T.CANCELED, T.COMPLETED}
        assert sum(map(len, bench.curves(experiment_id))) == experiment.progress.epochs > 0
        assert experiment.best is not None
        assert checkpoint_files() == bench.checkpoints_known()
        with bench.database.transaction() as tx:
            orphans = experiments.delete(tx, bench.project, experiment_id)
        assert set(orphans) == checkpoint_files()

    def test_deleted_in_the_middle_it_leaves_nothing(
        self, bench: Bench, checkpoint_files: Callable[[], set[str]], artifacts: ArtifactStore
    ) -> None:
        experiment_id = bench.submit(parallelism=2)

        def cancel_and_delete() -> None:
            bench.steer("cancel", experiment_id)
            with bench.database.transaction() as tx:
                orphans = experiments.delete(tx, bench.project, experiment_id)
            for key in orphans:
                artifacts.delete(key)

        bench.work(experiment_id, bench.worker("wrk_first", {4: cancel_and_delete}))
        assert checkpoint_files() == set()

    def test_a_shift_on_nothing_does_nothing(self, bench: Bench) -> None:
        bench.work("exp_unknown")
        experiment_id = bench.submit()
        bench.steer("cancel", experiment_id)
        bench.work(experiment_id)
        assert bench.trials(experiment_id) == []


class TestFaults:
    def test_a_deleted_dataset_ends_the_experiment_with_its_name(self, bench: Bench) -> None:
        experiment_id = bench.submit()
        with bench.database.transaction() as tx:
            tx.connection.execute(delete(dataset_table).where(dataset_table.c.name == "digits"))
        bench.work(experiment_id)
        experiment = bench.experiment(experiment_id)
        assert experiment.state is E.FAILED
        assert experiment.reason == "its data or network cannot be used: dataset 'digits' was deleted"

    def test_a_lost_dataset_file_ends_the_experiment_with_a_reason(
        self, bench: Bench, artifacts: ArtifactStore
    ) -> None:
        experiment_id = bench.submit()
        with bench.database.transaction() as tx:
            key = tx.connection.execute(
                select(dataset_table.c.artifact).where(dataset_table.c.name == "digits")
            ).scalar_one()
        artifacts.delete(key)
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.FAILED
        assert "no artifact" in (bench.experiment(experiment_id).reason or "")

    def test_diverging_trials_are_infeasible_and_say_when(self, bench: Bench) -> None:
        experiment_id = bench.submit(
            fixed={"width": 16, "depth": 1, "batch_size": 64, "learning_rate": 1e6, "optimizer": "sgd"},
            space=[{"name": "dropout", "type": "float", "low": 0.0, "high": 0.5}],
        )
        bench.work(experiment_id)
        trials = bench.trials(experiment_id)
        assert [trial.state for trial in trials] == [T.INFEASIBLE] * 3
        assert all("epoch 1" in (trial.reason or "") for trial in trials)
        experiment = bench.experiment(experiment_id)
        assert experiment.state is E.FAILED
        assert experiment.reason == f"no trial gave a value; trial 1: {trials[0].reason}"

    def test_an_artifact_store_that_is_away_costs_no_trial(self, bench: Bench, artifacts: ArtifactStore) -> None:
        """Given the data cannot be read for a while, the trial waits for another shift, at no loss."""

        class AwayStore(ArtifactStore):
            def local_copy(self, key: str) -> object:  # type: ignore[override]
                raise OSError("the store is away")

        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(2))
        worker = bench.worker("wrk_away")
        store = AwayStore.__new__(AwayStore)
        store.__dict__.update(worker.artifacts.__dict__)
        with pytest.raises(OSError, match="away"):
            bench.work(experiment_id, replace(worker, artifacts=store))
        (trial,) = bench.trials(experiment_id)
        assert trial.state is T.QUEUED
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.COMPLETED

    def test_a_late_writer_is_refused(self, bench: Bench) -> None:
        """Given another worker took the trial over, the first one's report and hand-back change nothing."""
        experiment_id = bench.submit()
        with pytest.raises(Died):
            bench.work(experiment_id, bench.worker("wrk_first", {1: die}))
        bench.let_leases_run_out()
        upkeep.sweep(bench.database, bench.bus)
        with bench.database.transaction() as tx:
            claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_second", 1)
        assert claim is not None
        (mine,) = claim.trials
        before = bench.trials(experiment_id)
        late = TrialReport(
            mine.id,
            mine.attempts - 1,
            (Measured(4, 1.0, 1.0, {}),),
            {"epoch": 4, "artifact": "checkpoints/late"},
            finished=True,
        )
        with bench.database.transaction() as tx:
            answer = shifts.report(tx, bench.bus, experiment_id, [late], {})
        assert answer.verdicts == {mine.id: Verdict.LOST}
        assert answer.kept == frozenset()
        with bench.database.transaction() as tx:
            shifts.hand_back(tx, bench.bus, experiment_id, {mine.id: mine.attempts - 1}, again=False)
            assert shifts.extend(tx, {mine.id: mine.attempts - 1}) == set()
            assert shifts.extend(tx, {mine.id: mine.attempts}) == {mine.id}
        assert bench.trials(experiment_id) == before
        assert "checkpoints/late" not in bench.checkpoints_known()


class TestSideBySide:
    def test_two_experiments_take_turns(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Given another message waits when the time is up, the shift hands back and rings again."""
        monkeypatch.setenv("FORETUNE_SHIFT_S", "0.000001")
        settings.cache_clear()
        one, other = bench.submit(), bench.submit()
        bench.work(one)
        assert bench.experiment(one).state is E.RUNNING
        assert bench.experiment(one).progress.trials == {"QUEUED": 1}
        waiting = bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN]
        bench.work(other)
        assert bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN] == waiting + 1


class TestTime:
    def test_its_seconds_are_never_exceeded_by_more_than_one_epoch_of_each_slot(self, bench: Bench) -> None:
        experiment_id = bench.submit(budget={"max_trials": 500, "max_epochs": 4, "max_seconds": 0.7}, parallelism=3)
        bench.work(experiment_id)
        experiment = bench.experiment(experiment_id)
        assert (experiment.state, experiment.reason) == (E.COMPLETED, "the budget of 0.7 seconds is spent")
        assert experiment.started_at is not None
        over = experiment.started_at + timedelta(seconds=0.7)
        with bench.database.transaction() as tx:
            late = [
                sum(
                    one.created_at > over
                    for one in trials.measurements_page(tx, bench.project, trial.id, limit=100, cursor=None).items
                )
                for trial in bench.trials(experiment_id)
            ]
        assert max(late) <= 1
        assert sum(late) <= 3
        assert all(trial.state.finished for trial in bench.trials(experiment_id))


class TestAttempts:
    def test_handing_back_again_and_again_is_no_loss(self, bench: Bench) -> None:
        """Given a long trial that many shifts took turns on, one lost worker does not fail it."""
        experiment_id = bench.submit(budget={"max_trials": 1, "max_epochs": 30})
        for number in range(9):
            bench.work(experiment_id, bench.stopped_at(1, f"wrk_{number}"))
        with pytest.raises(Died):
            bench.work(experiment_id, bench.worker("wrk_last", {1: die}))
        bench.let_leases_run_out()
        upkeep.sweep(bench.database, bench.bus)
        (trial,) = bench.trials(experiment_id)
        assert (trial.attempts, trial.state) == (10, T.QUEUED)

    def test_a_trial_that_kills_every_worker_fails(self, bench: Bench) -> None:
        """Given eight workers in a row died of it before an epoch was done, the ninth is spared."""
        experiment_id = bench.submit(budget={"max_trials": 1, "max_epochs": 3})
        for _ in range(upkeep.MAX_ATTEMPTS):
            with bench.database.transaction() as tx:
                claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_victim", 1)
                assert claim is not None
                if claim.open_slots:
                    point = Proposed({"learning_rate": 0.01, "dropout": 0.1}, "random", None, {"index": 0})
                    shifts.start(tx, bench.bus, experiment_id, "wrk_victim", [point])
            bench.let_leases_run_out()
            upkeep.sweep(bench.database, bench.bus)
        (trial,) = bench.trials(experiment_id)
        assert (trial.state, trial.reason) == (T.FAILED, "its worker was lost 8 times in a row")
        assert bench.experiment(experiment_id).state is E.FAILED
