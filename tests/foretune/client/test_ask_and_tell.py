"""The ask/tell loop: reports, decisions, endings."""

from __future__ import annotations

import gc
import math

import pytest

from foretune import TrialInfeasible
from foretune.errors import BudgetExhausted, ClientError
from tests.foretune.client.study import EXPERIMENT, Study


def test_a_loop_reports_follows_decisions_and_ends_with_the_budget(study, experiment) -> None:
    # given / when a plain training loop over all trials
    seen = []
    for trial in experiment.trials():
        seen.append((trial.number, trial.hyperparameters["x"], trial.origin))
        for epoch, rate in enumerate(trial.learning_rates, start=1):
            decision = trial.report(epoch, rate, seconds=0.1, metrics={"train_loss": 1, "gradient": math.nan})
            assert not decision.stop
    # then every trial was measured and completed with its last value, under its own lease
    assert seen == [(1, 0.5, "gp"), (2, 1.0, "gp"), (3, 1.5, "gp")]
    assert study.endings == [{"value": 0.05}] * 3
    # and each ending brought the next trial: asked was for the first, and why there is no fourth
    assert study.asks == 2
    assert study.told[0] == (
        "measured",
        {"lease": "token-1",
         "measurements": [{"epoch": 1, "value": 0.1, "seconds": 0.1, "metrics": {"train_loss": 1.0}}]},
    )  # fmt: skip


def test_an_ending_brings_the_next_trial_until_there_is_none(study, experiment) -> None:
    # given / when
    seen, trial = [], experiment.ask()
    while trial is not None:
        seen.append(trial)
        trial = trial.complete_and_ask(math.nan if trial.number == 2 else 0.25 * trial.number)
    # then the last answer had none, and a setting without a value counts as infeasible, as with `complete`
    assert [one.number for one in seen] == [1, 2, 3]
    assert all(one.closed for one in seen)
    infeasible = {"outcome": "infeasible", "reason": "the value is nan"}
    assert study.endings == [{"value": 0.25}, infeasible, {"value": 0.75}]
    assert study.asks == 1


def test_a_lost_answer_to_an_ending_is_asked_for_again_under_the_same_key(service, study, experiment) -> None:
    # given a connection that breaks while the answer is on its way
    trial = experiment.ask()
    service.on("POST", "/v1/trials/tri_1/complete", service.drop(), study.completed)
    # when
    following = trial.complete_and_ask(0.5)
    # then
    assert following is not None
    assert following.number == 2
    first, second = service.sent("POST", "/v1/trials/tri_1/complete")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.json == second.json


def test_the_learning_rate_follows_the_last_factor(study, experiment) -> None:
    with experiment.ask() as trial:
        assert trial.learning_rate(1) == 0.1
        trial.report(1, 0.3)
        assert trial.learning_rate(2) == 0.05 * 0.5
        with pytest.raises(ClientError, match="epochs 1 … 2, not 3"):
            trial.learning_rate(3)


def test_a_trial_that_is_told_to_stop_is_completed_with_what_it_reported(study, experiment) -> None:
    study.decision = "stop"
    with experiment.ask() as trial:
        assert trial.report(1, 0.7).stop
        assert trial.should_stop
    assert study.endings == [{"value": 0.7}]


def test_a_frozen_trial_is_left_as_it_is(study, experiment) -> None:
    study.decision = "pause"
    with experiment.ask() as trial:
        assert trial.report(1, 0.7).stop
    assert trial.closed
    assert study.endings == []


def test_a_trial_that_ended_with_its_experiment_stops_without_a_complaint(service, study, experiment) -> None:
    # given an experiment whose target another client reached
    for verb in ("measurements", "complete"):
        service.on("POST", f"/v1/trials/tri_1/{verb}", service.problem(409, "trial_finished", "the target is reached"))
        service.on("POST", f"/v1/trials/tri_2/{verb}", service.problem(409, "trial_finished", "the target is reached"))
    # when / then a report says to stop, and a completion changes nothing
    with experiment.ask() as trial:
        assert trial.report(1, 0.7).stop
    assert trial.closed
    with experiment.ask() as trial:
        trial.complete(0.7)
    assert study.told == []


def test_the_loop_waits_while_the_experiment_is_paused_and_ends_when_it_is_canceled(
    service, study, experiment, monkeypatch
) -> None:
    monkeypatch.setattr("foretune.client.experiment._PAUSED_POLL_S", 0.01)
    study.asked = 2  # one is left
    service.on(
        "POST",
        f"{EXPERIMENT}/suggestions",
        service.problem(409, "experiment_paused"),
        service.problem(409, "experiment_paused"),
        study.suggest,
        service.answer({"trials": []}),
        service.problem(409, "experiment_finished", "the experiment is CANCELED"),
    )
    assert [trial.report(1, 0.1) and trial.number for trial in experiment.trials()] == [3]
    assert list(experiment.trials()) == []


def test_an_exception_fails_the_trial_and_goes_on_its_way(study, experiment) -> None:
    with pytest.raises(ZeroDivisionError), experiment.ask():
        1 / 0  # noqa: B018
    assert study.endings == [{"outcome": "failed", "reason": "ZeroDivisionError: division by zero"}]


def test_an_infeasible_setting_is_declared_so(study, experiment) -> None:
    with pytest.raises(TrialInfeasible), experiment.ask():
        raise TrialInfeasible("out of memory at batch size 4096")
    with experiment.ask() as trial:
        trial.infeasible("too deep")
    with experiment.ask() as trial:
        trial.report(1, math.nan)
    assert study.endings == [
        {"outcome": "infeasible", "reason": "out of memory at batch size 4096"},
        {"outcome": "infeasible", "reason": "too deep"},
        {"outcome": "infeasible", "reason": "the value after epoch 1 is nan"},
    ]
    assert study.told[-2][1]["measurements"] == [{"epoch": 1, "value": None}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_final_value_that_is_no_number_is_infeasible(study, experiment, value: float) -> None:
    experiment.ask().complete(value)
    assert study.endings == [{"outcome": "infeasible", "reason": f"the value is {value}"}]


def test_ctrl_c_hands_the_trial_back_without_a_result(study, experiment) -> None:
    with pytest.raises(KeyboardInterrupt), experiment.ask() as trial:
        raise KeyboardInterrupt
    assert trial.closed
    assert study.told == []


def test_a_block_that_reports_nothing_is_a_bug_that_is_said(study, experiment) -> None:
    with pytest.raises(ClientError, match=r"ended without report\(\) or complete\(\)"), experiment.ask():
        pass
    assert study.endings == [{"outcome": "failed", "reason": "ended without report() or complete()"}]


def test_an_ended_trial_takes_no_more_reports(study, experiment) -> None:
    trial = experiment.ask()
    trial.complete(1.0)
    with pytest.raises(ClientError, match="was ended already"):
        trial.report(1, 0.5)


def test_leaving_the_loop_hands_the_open_trial_back(study, experiment) -> None:
    left = None
    for trial in experiment.trials():
        left = trial
        break
    gc.collect()
    assert left is not None
    assert left.closed
    assert study.told == []


def test_optimize_in_threads_runs_every_trial_once(service, client) -> None:
    # given
    study = Study(service, max_trials=20)
    values = {}
    # when
    client.experiments.get("exp_1").optimize(lambda trial: values.setdefault(trial.number, trial.number / 4), n_jobs=4)
    # then
    assert sorted(values) == list(range(1, 21))
    assert sorted(ending["value"] for ending in study.endings) == [n / 4 for n in range(1, 21)]


def test_optimize_stops_at_an_error_unless_told_to_catch_it(service, client) -> None:
    def objective(trial):
        if trial.number == 2:
            raise ValueError("bad batch")
        return 1.0

    study = Study(service, max_trials=4)
    with pytest.raises(ValueError, match="bad batch"):
        client.experiments.get("exp_1").optimize(objective)
    assert study.asked == 2
    # but with catch it is only that trial's end
    study = Study(service, max_trials=4)
    client.experiments.get("exp_1").optimize(objective, catch=(ValueError,))
    assert study.endings[1] == {"outcome": "failed", "reason": "ValueError: bad batch"}
    assert len(study.endings) == 4


def test_optimize_goes_on_after_a_setting_that_cannot_be_trained(service, client) -> None:
    def objective(trial):
        if trial.number == 2:
            raise TrialInfeasible("out of memory")
        return 1.0

    study = Study(service, max_trials=3)
    client.experiments.get("exp_1").optimize(objective)
    assert study.endings == [{"value": 1.0}, {"outcome": "infeasible", "reason": "out of memory"}, {"value": 1.0}]


def test_optimize_passes_over_a_trial_that_someone_else_has(service, study, experiment) -> None:
    service.on("POST", "/v1/trials/tri_2/complete", service.problem(409, "lease_lost"))
    experiment.optimize(lambda trial: 1.0)
    assert study.endings == [{"value": 1.0}] * 2


def test_asking_for_many_leases_all_of_them(study, experiment) -> None:
    assert [trial.number for trial in experiment.ask_many(5)] == [1, 2, 3]
    with pytest.raises(BudgetExhausted, match="all 3 trials are out"):
        experiment.ask()
