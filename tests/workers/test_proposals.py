"""From rows to proposals: what was told is seen, what is pending is avoided, and a restart changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.errors import NotFound
from foretune.json_types import JsonValue
from foretune.states import TrialState
from foretune.wire.experiments import ExperimentPatch
from metalearner import Effort
from service.usecases import experiments, shifts
from service.usecases.outcomes import Measured
from service.usecases.shifts import TrialReport, Verdict
from service.usecases.trials import Proposed
from workers.proposals import Proposals

if TYPE_CHECKING:
    from service.usecases.proposals import StoredTrial
    from tests.workers.conftest import Bench

FAST = Effort.FAST


def start(bench: Bench, experiment_id: str, proposed: list[Proposed]) -> list[StoredTrial]:
    with bench.database.transaction() as tx:
        return shifts.start(tx, bench.bus, experiment_id, "wrk_test", proposed)


def finish(bench: Bench, experiment_id: str, trials: list[StoredTrial], value: float) -> None:
    reports = [TrialReport(one.id, one.attempts, (Measured(1, value, 1.0, {}),), finished=True) for one in trials]
    with bench.database.transaction() as tx:
        shifts.report(tx, bench.bus, experiment_id, reports, {})


def configurations(proposed: list[Proposed]) -> list[object]:
    return [one.configuration for one in proposed]


@pytest.mark.parametrize("proposer", ["quasirandom", "random", "gp", "tpe", "auto"])
def test_another_worker_proposes_the_same(bench: Bench, proposer: str) -> None:
    """Given the same results, a worker that saw them come and one that reads them now agree."""
    experiment_id = bench.submit(proposer=proposer, budget={"max_trials": 20, "max_epochs": 2}, parallelism=10)
    old = Proposals(bench.database)
    for number in range(6):
        started = start(bench, experiment_id, old.propose(experiment_id, 1, FAST))
        assert len(started) == 1
        finish(bench, experiment_id, started, 0.1 * number)
    mine = old.propose(experiment_id, 2, FAST)
    theirs = Proposals(bench.database).propose(experiment_id, 2, FAST)
    assert configurations(mine) == configurations(theirs)
    assert [one.replay["index"] for one in mine] == [6, 7]


def test_stopped_trials_are_read_by_what_finished_ones_came_to(bench: Bench) -> None:
    """Given the first trial is stopped after others finished, whoever saw it come and whoever reads now agree."""
    experiment_id = bench.submit(
        proposer="gp", stopping="auto", budget={"max_trials": 20, "max_epochs": 2}, parallelism=10
    )
    old = Proposals(bench.database)
    for value in (0.25, 0.5, 0.75):
        (one,) = start(bench, experiment_id, old.propose(experiment_id, 1, FAST))
        for epoch, measured in ((1, value), (2, value + 0.125)):
            report = TrialReport(one.id, one.attempts, (Measured(epoch, measured, 1.0, {}),), finished=epoch == 2)
            with bench.database.transaction() as tx:
                shifts.report(tx, bench.bus, experiment_id, [report], {})
    (one,) = start(bench, experiment_id, old.propose(experiment_id, 1, FAST))
    with bench.database.transaction() as tx:
        report = TrialReport(one.id, one.attempts, (Measured(1, 0.375, 1.0, {}),))
        answer = shifts.report(tx, bench.bus, experiment_id, [report], {1: 0.5})
        assert answer.verdicts[one.id] is Verdict.STOP
    mine = old.propose(experiment_id, 3, FAST)
    theirs = Proposals(bench.database).propose(experiment_id, 3, FAST)
    assert configurations(mine) == configurations(theirs)
    _, seen, _ = old.observed(experiment_id)
    assert [observation.curve for observation in seen] == [(0.25, 0.375), (0.5, 0.625), (0.75, 0.875), ()]
    assert [observation.finished for observation in seen] == [True, True, True, False]


def test_no_two_pending_proposals_are_the_same(bench: Bench) -> None:
    experiment_id = bench.submit(budget={"max_trials": 50, "max_epochs": 2}, parallelism=50)
    proposals = Proposals(bench.database)
    made = [one for _ in range(5) for one in proposals.propose(experiment_id, 4, FAST)]
    assert len({str(one.configuration) for one in made}) == 20
    assert [one.replay["index"] for one in made] == list(range(20))


def test_what_was_refused_is_proposed_anew(bench: Bench) -> None:
    """Given two workers propose at the same moment, one of them is refused and then sees the other's trials."""
    experiment_id = bench.submit(budget={"max_trials": 50, "max_epochs": 2}, parallelism=50)
    mine, theirs = Proposals(bench.database), Proposals(bench.database)
    first, second = mine.propose(experiment_id, 2, FAST), theirs.propose(experiment_id, 2, FAST)
    assert configurations(first) == configurations(second)
    assert len(start(bench, experiment_id, first)) == 2
    assert start(bench, experiment_id, second) == []
    theirs.forget_outstanding(experiment_id)
    again = theirs.propose(experiment_id, 2, FAST)
    assert len(start(bench, experiment_id, again)) == 2
    assert len({str(trial.hyperparameters) for trial in bench.trials(experiment_id)}) == 4


def test_no_more_start_than_may_run(bench: Bench) -> None:
    experiment_id = bench.submit(budget={"max_trials": 5, "max_epochs": 2}, parallelism=3)
    assert len(start(bench, experiment_id, Proposals(bench.database).propose(experiment_id, 5, FAST))) == 3


def test_a_wider_space_is_proposed_from_at_once(bench: Bench) -> None:
    experiment_id = bench.submit(budget={"max_trials": 50, "max_epochs": 2}, parallelism=50)
    proposals = Proposals(bench.database)
    start(bench, experiment_id, proposals.propose(experiment_id, 4, FAST))
    wider: list[JsonValue] = [
        {"name": "learning_rate", "type": "float", "low": 1e-10, "high": 1e10, "log": True},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.9},
    ]
    with bench.database.transaction() as tx:
        patch = ExperimentPatch.model_validate({"space": wider})
        experiments.patch(tx, bench.bus, bench.project, experiment_id, patch)
    made = proposals.propose(experiment_id, 8, FAST)
    rates = [one.configuration["learning_rate"] for one in made]
    assert any(not 1e-3 <= float(str(rate)) <= 0.1 for rate in rates)


def test_infeasible_settings_are_results_too(bench: Bench) -> None:
    experiment_id = bench.submit(budget={"max_trials": 50, "max_epochs": 2}, parallelism=50)
    proposals = Proposals(bench.database)
    started = start(bench, experiment_id, proposals.propose(experiment_id, 3, FAST))
    reports = [
        TrialReport(started[0].id, 1, infeasible="diverged"),
        TrialReport(started[1].id, 1, failed="a bug"),
        TrialReport(started[2].id, 1, (Measured(1, 0.5, 1.0, {}),), finished=True),
    ]
    with bench.database.transaction() as tx:
        shifts.report(tx, bench.bus, experiment_id, reports, {})
    _, observations, _ = proposals.observed(experiment_id)
    assert sorted((one.infeasible, one.value) for one in observations if one.value is None) == [(True, None)]
    assert [one.value for one in observations if not one.infeasible] == [0.5]


def test_a_deleted_experiment_is_unknown(bench: Bench) -> None:
    proposals = Proposals(bench.database)
    experiment_id = bench.submit()
    proposals.propose(experiment_id, 1, FAST)
    bench.steer("cancel", experiment_id)
    with bench.database.transaction() as tx:
        experiments.delete(tx, bench.project, experiment_id)
    with pytest.raises(NotFound):
        proposals.propose(experiment_id, 1, FAST)


class TestThresholds:
    def test_without_a_policy_there_are_none(self, bench: Bench) -> None:
        experiment_id = bench.submit(stopping="none")
        proposals = Proposals(bench.database)
        proposals.propose(experiment_id, 1, FAST)
        assert proposals.thresholds(experiment_id, range(1, 5)) == {}

    def test_the_median_of_those_that_came_so_far(self, bench: Bench) -> None:
        experiment_id = bench.submit(
            stopping="median",
            budget={"max_trials": 20, "max_epochs": 9},
            parallelism=20,
            metric={"name": "val_accuracy", "goal": "maximize"},
        )
        proposals = Proposals(bench.database)
        started = start(bench, experiment_id, proposals.propose(experiment_id, 9, FAST))
        for number, trial in enumerate(started):
            curve = tuple(Measured(epoch, 0.1 * number, 1.0, {}) for epoch in range(1, 7))
            with bench.database.transaction() as tx:
                shifts.report(tx, bench.bus, experiment_id, [TrialReport(trial.id, 1, curve)], {})
        thresholds = proposals.thresholds(experiment_id, [6])
        assert thresholds[6] == pytest.approx(0.4)
        late = start(bench, experiment_id, proposals.propose(experiment_id, 1, FAST))
        slow = tuple(Measured(epoch, 0.05, 1.0, {}) for epoch in range(1, 7))
        with bench.database.transaction() as tx:
            shifts.report(tx, bench.bus, experiment_id, [TrialReport(late[0].id, 1, slow)], thresholds)
        assert bench.trials(experiment_id)[-1].state is TrialState.STOPPED


class TestPausing:
    def test_it_pauses_where_trials_are_its_own_to_thaw(self, bench: Bench) -> None:
        proposals, budget = Proposals(bench.database), {"max_trials": 12, "max_epochs": 20}
        assert proposals.rung(bench.submit(stopping="auto", budget=budget)) == 2
        assert proposals.rung(bench.submit(stopping="asha", budget=budget)) is None
        assert proposals.rung(bench.submit(stopping="auto", budget={"max_trials": 12, "max_epochs": 1})) is None
        assert proposals.rung(bench.submit(stopping="auto", budget={"max_trials": 11, "max_epochs": 20})) is None

    def test_another_worker_proposes_the_same_from_paused_trials(self, bench: Bench) -> None:
        experiment_id = bench.submit(
            stopping="auto", proposer="gp", budget={"max_trials": 30, "max_epochs": 10, "max_total_epochs": 40}
        )
        bench.work(experiment_id, bench.stopped_at(30))
        known = Proposals(bench.database)
        known.propose(experiment_id, 1, Effort.FAST)
        known.forget_outstanding(experiment_id)
        one = known.propose(experiment_id, 2, Effort.FAST)
        other = Proposals(bench.database).propose(experiment_id, 2, Effort.FAST)
        assert one == other
        assert {proposal.origin for proposal in one} == {"gp"}
