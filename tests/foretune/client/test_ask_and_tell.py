"""The ask/tell loop: reports, decisions, endings, leases that stay alive by themselves."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from foretune import Client, Float, Schedule, TrialInfeasible
from foretune.client.leases import beat_interval_s
from foretune.errors import BudgetExhausted, ClientError, ConnectionFailed, InvalidExperiment, LeaseLost

EXPERIMENT = "/v1/experiments/exp_1"
SCHEDULE = {"peak": 0.1, "warmup_fraction": 0, "plateau_fraction": 0, "decay_exponent": 1, "final_fraction": 0}


class Study:
    """An external experiment on the scripted service, which keeps count of what it is told."""

    def __init__(self, service, max_trials: int = 3, lease_s: float = 60.0) -> None:
        self.service, self.max_trials, self.lease_s = service, max_trials, lease_s
        self.asks = 0  # calls of /suggestions
        self.asked, self.told, self.beats, self.decision = 0, [], Counter(), "continue"
        self.lock = threading.Lock()
        service.on("POST", "/v1/experiments", lambda request: self.reply(self.info()))
        service.on("GET", EXPERIMENT, lambda request: self.reply(self.info()))
        service.on("POST", f"{EXPERIMENT}/suggestions", self.suggest)
        for n in range(1, max_trials + 1):
            service.on("POST", f"/v1/trials/tri_{n}/measurements", self.measured)
            service.on("POST", f"/v1/trials/tri_{n}/heartbeat", self.beaten)
            service.on("POST", f"/v1/trials/tri_{n}/complete", self.completed)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def reply(self, body: object):
        return self.service.answer(body)

    def lease(self, n: object) -> dict[str, object]:
        return {"token": f"token-{n}", "expires_at": (self.now + timedelta(seconds=self.lease_s)).isoformat()}

    def info(self) -> dict[str, object]:
        return {
            "id": "exp_1", "name": "n", "state": "RUNNING", "mode": "external", "created_at": self.now.isoformat(),
            "metric": {"name": "val_loss", "goal": "minimize"}, "space": [], "fixed": {}, "budget": {},
            "stopping": "auto", "proposer": "auto", "priors": "auto", "parallelism": 1, "seed": 0,
            "share_history": True, "labels": {}, "features": {}, "last_event": 0,
            "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0},
        }  # fmt: skip

    def suggest(self, request):
        self.asks += 1
        trials = self.suggestions(request.json["count"])
        if not trials:
            return self.service.problem(409, "budget_exhausted", "all 3 trials are out")
        return self.reply({"trials": trials})

    def suggestions(self, count: int) -> list[dict[str, object]]:
        trials: list[dict[str, object]] = []
        with self.lock:
            for _ in range(min(count, self.max_trials - self.asked)):
                self.asked += 1
                trials.append({
                    "id": f"tri_{self.asked}", "number": self.asked, "hyperparameters": {"x": 0.5 * self.asked},
                    "lr_schedule": {**SCHEDULE, "values": [0.1, 0.05]}, "origin": "gp",
                    "lease": self.lease(self.asked),
                })  # fmt: skip
        return trials

    def measured(self, request):
        self.told.append(("measured", request.json))
        answer = {"decision": self.decision, "lr_factor": 0.5, "lease": self.lease(request.path.split("_")[1][0])}
        return self.reply(answer)

    def beaten(self, request):
        self.beats[request.json["lease"]] += 1
        return self.reply({"lease": self.lease(request.json["lease"].removeprefix("token-"))})

    def completed(self, request):
        self.told.append(("completed", request.json))
        ended = {
            "id": "tri_1", "experiment": "exp_1", "number": 1, "state": "COMPLETED", "hyperparameters": {},
            "origin": "gp", "attempts": 1, "epochs": 0, "seconds": 0.0, "created_at": self.now.isoformat(),
        }  # fmt: skip
        if "next" in request.json:
            ended["next"] = {"trials": self.suggestions(request.json["next"]["count"])}
        return self.reply(ended)

    @property
    def endings(self) -> list[dict[str, object]]:
        without = {"lease", "next"}
        return [{k: v for k, v in body.items() if k not in without} for kind, body in self.told if kind == "completed"]


@pytest.fixture
def study(service) -> Study:
    return Study(service)


@pytest.fixture
def experiment(client, study):
    return client.experiments.get("exp_1")


def eventually(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


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


def test_a_lost_lease_is_raised_by_the_report_and_the_trial_is_over(service, study, experiment) -> None:
    service.on("POST", "/v1/trials/tri_1/measurements", service.problem(409, "lease_lost", "attempt 2 has it"))
    with pytest.raises(LeaseLost, match="attempt 2 has it"), experiment.ask() as trial:
        trial.report(1, 0.5)
    assert trial.closed
    assert study.endings == []


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


def test_leases_of_slow_trials_stay_alive_and_end_with_them(service, client) -> None:
    # given two trials with short leases that report nothing for a while
    study = Study(service, lease_s=0.9)
    experiment = client.experiments.get("exp_1")
    with experiment.ask() as first:
        second = experiment.ask()
        # when / then both leases are kept
        eventually(lambda: study.beats["token-1"] >= 2 and study.beats["token-2"] >= 2)
        first.complete(1.0)
        # and after its end, a trial's lease is left alone while the other's is kept
        done = study.beats["token-1"]
        before = study.beats["token-2"]
        eventually(lambda: study.beats["token-2"] >= before + 3)
        assert study.beats["token-1"] <= done + 1
    second.hand_back()


def test_a_heartbeat_survives_a_restart_and_brings_a_lost_lease_to_the_next_report(service, client) -> None:
    # given a slow trial
    study = Study(service, lease_s=0.9)
    experiment = client.experiments.get("exp_1")
    trial = experiment.ask()
    # when the service goes away and comes back
    service.stop()
    time.sleep(0.5)
    service.start()
    # then the beats go on
    before = study.beats["token-1"]
    eventually(lambda: study.beats["token-1"] > before)
    # and when someone else got the trial, the next report says so without asking the service
    service.on("POST", "/v1/trials/tri_1/heartbeat", service.problem(409, "lease_lost", "it ran out"))
    sent = len(service.sent("POST", "/v1/trials/tri_1/heartbeat"))
    eventually(lambda: len(service.sent("POST", "/v1/trials/tri_1/heartbeat")) > sent)
    eventually(lambda: trial._lost is not None)
    with pytest.raises(LeaseLost, match="it ran out"):
        trial.report(1, 0.5)
    assert study.told == []


def test_a_forgotten_trial_is_not_kept_from_others(service, client) -> None:
    # given a trial that the program drops
    study = Study(service, lease_s=0.9)
    trial = client.experiments.get("exp_1").ask()
    eventually(lambda: study.beats["token-1"] >= 1)
    heartbeat = client._heartbeat
    # when
    del trial
    gc.collect()
    # then the heartbeat has nothing left to do and ends
    eventually(lambda: not heartbeat.alive)


def test_an_unreachable_service_in_the_block_is_the_error_that_arrives(service, study, client) -> None:
    experiment = client.experiments.get("exp_1")
    trial = experiment.ask()
    service.stop()
    client._transport.retry = type(client._transport.retry)(give_up_after_s=0.0)
    with pytest.raises(ConnectionFailed), trial:
        trial.report(1, 0.1)
    assert trial.closed


def test_the_beat_goes_by_the_services_clock() -> None:
    # given a service whose clock is an hour ahead of ours, and leases of a minute
    ours = datetime(2026, 1, 1, tzinfo=UTC)
    theirs = ours + timedelta(hours=1)
    assert beat_interval_s(theirs + timedelta(seconds=60), theirs, ours) == 20.0
    # when it does not tell its time, ours must do, and an expiry in our past is no reason to stop
    assert beat_interval_s(ours + timedelta(seconds=60), None, ours) == 20.0
    assert beat_interval_s(ours - timedelta(hours=1), None, ours) == 20.0


def test_create_sends_what_was_given_and_nothing_else(service, study, client) -> None:
    client.experiments.create(
        mode="external",
        space=[Float("lr", 1e-5, 0.1, log=True), Schedule(), {"name": "k", "type": "int", "low": 1, "high": 9}],
        metric=("val_loss", "minimize"),
        budget={"max_trials": 50},
    )
    sent = service.sent("POST", "/v1/experiments")[0]
    assert sent.json == {
        "mode": "external",
        "space": [
            {"name": "lr", "type": "float", "low": 1e-5, "high": 0.1, "log": True},
            {"name": "lr_schedule", "type": "schedule", "role": "lr_schedule"},
            {"name": "k", "type": "int", "low": 1, "high": 9, "log": False},
        ],
        "metric": {"name": "val_loss", "goal": "minimize"},
        "budget": {"max_trials": 50},
    }
    assert sent.headers["authorization"] == "Bearer key-1"


def test_what_is_wrong_with_a_submission_is_said_before_it_is_sent(service, client: Client) -> None:
    with pytest.raises(InvalidExperiment, match=r"space\[0\].*low must be less than high") as caught:
        client.experiments.create({
            "mode": "external", "space": [{"name": "lr", "type": "float", "low": 1, "high": 0}],
            "metric": {"name": "m", "goal": "up"}, "bugdet": {},
        })  # fmt: skip
    assert {fault.loc for fault in caught.value.errors} == {("space", 0), ("metric", "goal"), ("bugdet",)}
    assert service.received == []
