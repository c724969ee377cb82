"""Managed experiments pause trials and thaw them: to the end, through a drain, a death and beside another worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.events import EventType
from foretune.states import ExperimentState, TrialState
from metalearner import Effort
from service.settings import settings
from service.usecases import shifts, upkeep
from service.usecases.outcomes import Measured
from service.usecases.shifts import TrialReport, Verdict
from tests.workers.test_sharing import most_at_once, sign
from tests.workers.test_shift import Died, die
from workers.proposals import Proposals

if TYPE_CHECKING:
    from foretune.json_types import JsonObject
    from tests.workers.conftest import Bench

E, T = ExperimentState, TrialState
EPOCHS, RUNG = 10, 1
PAUSING: JsonObject = {
    "budget": {"max_trials": 12, "max_epochs": EPOCHS, "max_total_epochs": 1000},
    "stopping": "auto",
    "parallelism": 4,
}


def _submit(bench: Bench) -> str:
    return bench.submit(**PAUSING)


def _moves(bench: Bench, experiment_id: str, state: TrialState) -> int:
    log = bench.events(experiment_id)
    return sum(one.type is EventType.TRIAL_STATE and one.data["state"] == state.value for one in log)


def _whole(bench: Bench, experiment_id: str) -> None:
    """It ended as it should: each trial once through, or stopped at the rung; and the best is one that went through."""
    experiment, trials = bench.experiment(experiment_id), bench.trials(experiment_id)
    assert (experiment.state, experiment.reason) == (E.COMPLETED, "all 12 trials are done")
    assert {(one.state, one.epochs) for one in trials} == {(T.COMPLETED, EPOCHS), (T.STOPPED, RUNG)}
    assert experiment.progress.epochs == sum(one.epochs for one in trials)


class TestPausing:
    def test_trials_pause_and_the_good_ones_are_thawed(self, bench: Bench) -> None:
        experiment_id = _submit(bench)
        bench.work(experiment_id)
        _whole(bench, experiment_id)
        assert _moves(bench, experiment_id, T.PAUSED) > _moves(bench, experiment_id, T.STOPPED)
        stopped = [one for one in bench.trials(experiment_id) if one.state is T.STOPPED]
        assert all("behind the other trials" in (one.reason or "") for one in stopped)

    def test_a_thawed_trial_is_trained_as_one_that_never_paused(self, bench: Bench) -> None:
        """Given the same settings and seeds without stopping, curves agree to the last bit as far as they go."""
        never = bench.submit(**{**PAUSING, "stopping": "none"})
        bench.work(never)
        experiment_id = _submit(bench)
        bench.work(experiment_id)
        for paused, through in zip(bench.curves(experiment_id), bench.curves(never), strict=True):
            assert paused == through[: len(paused)]

    def test_on_a_cpu_half_as_many_run_at_a_time_as_may(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETUNE_DEVICE", "cpu")
        settings.cache_clear()
        experiment_id = _submit(bench)
        bench.work(experiment_id)
        assert most_at_once(bench, experiment_id) == 2

    def test_the_default_is_trained_to_its_end_whatever_it_comes_to(self, bench: Bench) -> None:
        """Given it was paused with the lowest value of all at its rung, it is thawed at once and before the others."""
        experiment_id = _submit(bench)
        default, _ = _pause_two(bench, experiment_id)
        assert Proposals(bench.database).worthy(experiment_id)[0] == [default]
        bench.work(experiment_id)
        _whole(bench, experiment_id)
        ends = {one.id: (one.state, one.epochs) for one in bench.trials(experiment_id)}
        assert ends[default] == (T.COMPLETED, EPOCHS)

    def test_with_a_target_out_of_reach_none_is_given_up(self, bench: Bench) -> None:
        """Given all trials are there and the best are through, the others go on, the most promising first."""
        experiment_id = bench.submit(**{**PAUSING, "budget": {"max_trials": 12, "max_epochs": EPOCHS, "target": 1.0}})
        bench.work(experiment_id)
        experiment = bench.experiment(experiment_id)
        assert (experiment.state, experiment.reason) == (E.COMPLETED, "all 12 trials are done")
        assert {(one.state, one.epochs) for one in bench.trials(experiment_id)} == {(T.COMPLETED, EPOCHS)}
        assert _moves(bench, experiment_id, T.PAUSED) > 0

    def test_with_more_slots_than_trials_it_ends(self, bench: Bench) -> None:
        experiment_id = bench.submit(**{**PAUSING, "parallelism": 100})
        bench.work(experiment_id)
        _whole(bench, experiment_id)

    def test_one_trial_alone_is_trained_to_its_end(self, bench: Bench) -> None:
        experiment_id = bench.submit(**{**PAUSING, "budget": {"max_trials": 1, "max_epochs": EPOCHS}})
        bench.work(experiment_id)
        assert [(one.state, one.epochs) for one in bench.trials(experiment_id)] == [(T.COMPLETED, EPOCHS)]

    def test_canceled_it_leaves_nothing_paused(self, bench: Bench) -> None:
        experiment_id = _submit(bench)
        bench.work(experiment_id, bench.worker("wrk_first", {6: lambda: bench.steer("cancel", experiment_id)}))
        assert {one.state for one in bench.trials(experiment_id)} <= {T.CANCELED, T.COMPLETED}


class TestProgress:
    def test_it_expects_that_few_of_the_paused_go_on(self, bench: Bench) -> None:
        """Given two of twelve trials were paused after one epoch of ten, a thirtieth of the work is done, not a
        sixtieth."""
        experiment_id = _submit(bench)
        _pause_two(bench, experiment_id)
        assert bench.experiment(experiment_id).progress.fraction == pytest.approx(1 / 30)


class TestInterrupted:
    @pytest.mark.parametrize("epochs", [3, 9, 25])
    def test_asked_to_stop_it_is_finished_by_the_next(self, bench: Bench, epochs: int) -> None:
        experiment_id = _submit(bench)
        bench.work(experiment_id, bench.stopped_at(epochs))
        assert bench.experiment(experiment_id).state is E.RUNNING
        bench.work(experiment_id, bench.worker("wrk_second"))
        _whole(bench, experiment_id)

    def test_killed_it_is_finished_by_the_next(self, bench: Bench) -> None:
        experiment_id = _submit(bench)
        with pytest.raises(Died):
            bench.work(experiment_id, bench.worker("wrk_first", {9: die}))
        bench.let_leases_run_out()
        upkeep.sweep(bench.database, bench.bus)
        bench.work(experiment_id, bench.worker("wrk_second"))
        _whole(bench, experiment_id)

    def test_where_all_are_paused_when_the_worker_dies_the_next_one_goes_on(self, bench: Bench) -> None:
        """Given every trial that the budget allows is paused and nothing runs, there is work for whoever comes."""
        experiment_id = bench.submit(**{**PAUSING, "budget": {"max_trials": 2, "max_epochs": EPOCHS}})
        _pause_two(bench, experiment_id)
        with bench.database.transaction() as tx:
            assert experiment_id in shifts.open_work(tx)
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert T.COMPLETED in {one.state for one in bench.trials(experiment_id)}


class TestShares:
    @pytest.mark.parametrize(("parallelism", "workers", "abreast"), [(8, 1, 4), (8, 6, 6), (3, 1, 2), (2, 4, 2)])
    def test_half_as_many_as_may_but_one_for_each_worker(
        self, bench: Bench, parallelism: int, workers: int, abreast: int
    ) -> None:
        experiment_id = bench.submit(**{**PAUSING, "parallelism": parallelism})
        sign(bench, *(f"wrk_idle{number}" for number in range(1, workers)))
        with bench.database.transaction() as tx:
            claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_one", 100, narrow=True)
        assert claim is not None
        assert claim.open_slots == abreast


class TestThawing:
    def test_two_workers_never_thaw_the_same_trial(self, bench: Bench) -> None:
        experiment_id = _submit(bench)
        ids = _pause_two(bench, experiment_id)
        assert [one.id for one in _thaw(bench, experiment_id, ids[:1], "wrk_one")] == ids[:1]
        assert [one.id for one in _thaw(bench, experiment_id, ids, "wrk_two")] == ids[1:]

    def test_nothing_is_given_up_on_old_news(self, bench: Bench) -> None:
        """Given something happened since the paused trials were judged, they stay."""
        experiment_id = bench.submit(**{**PAUSING, "budget": {"max_trials": 2, "max_epochs": EPOCHS}})
        _pause_two(bench, experiment_id)
        seen = len(bench.events(experiment_id))
        _thaw(bench, experiment_id, [], "wrk_one", seen - 1)
        assert {one.state for one in bench.trials(experiment_id)} == {T.PAUSED}
        _thaw(bench, experiment_id, [], "wrk_one", seen)
        assert {one.state for one in bench.trials(experiment_id)} == {T.STOPPED}
        assert bench.experiment(experiment_id).state is E.COMPLETED

    def test_while_others_may_be_proposed_none_is_given_up(self, bench: Bench) -> None:
        experiment_id = _submit(bench)
        _pause_two(bench, experiment_id)
        _thaw(bench, experiment_id, [], "wrk_one", len(bench.events(experiment_id)))
        assert {one.state for one in bench.trials(experiment_id)} == {T.PAUSED}


def _thaw(bench: Bench, experiment_id: str, trials: list[str], worker: str, seen: int = 0) -> list[shifts.StoredTrial]:
    with bench.database.transaction() as tx:
        return shifts.thaw(tx, bench.bus, experiment_id, worker, trials, 4, seen)


def _pause_two(bench: Bench, experiment_id: str) -> list[str]:
    """Two trials that measured one epoch and were paused; their ids."""
    proposed = Proposals(bench.database).propose(experiment_id, 2, Effort.FAST)
    with bench.database.transaction() as tx:
        started = shifts.start(tx, bench.bus, experiment_id, "wrk_early", proposed)
    reports = [TrialReport(one.id, one.attempts, (Measured(1, 0.1 * one.number, 0.1, {}),)) for one in started]
    with bench.database.transaction() as tx:
        answer = shifts.report(tx, bench.bus, experiment_id, reports, {1: 2.0}, pauses=True)
    assert set(answer.verdicts.values()) == {Verdict.STOP}
    assert {one.state for one in bench.trials(experiment_id)} == {T.PAUSED}
    return [one.id for one in started]
