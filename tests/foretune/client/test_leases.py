"""Leases of trials: they stay alive by themselves, and one that is lost is said."""

from __future__ import annotations

import gc
import time
from datetime import UTC, datetime, timedelta

import pytest

from foretune.client.leases import beat_interval_s
from foretune.errors import ConnectionFailed, LeaseLost
from tests.foretune.client.study import Study


def eventually(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_lost_lease_is_raised_by_the_report_and_the_trial_is_over(service, study, experiment) -> None:
    service.on("POST", "/v1/trials/tri_1/measurements", service.problem(409, "lease_lost", "attempt 2 has it"))
    with pytest.raises(LeaseLost, match="attempt 2 has it"), experiment.ask() as trial:
        trial.report(1, 0.5)
    assert trial.closed
    assert study.endings == []


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
