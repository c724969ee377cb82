"""What a submission sends, and what is wrong with one."""

from __future__ import annotations

import pytest

from foretune import Client, Float, Schedule
from foretune.errors import InvalidExperiment


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
