"""Roles: what a name means, in the spellings that people use."""

from __future__ import annotations

import pytest

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.roles import ROLES, guess_role
from foretune.spaces import Space


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_its_own_name(role: str) -> None:
    assert guess_role(role) == role


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("lr", "learning_rate"),
        ("LR", "learning_rate"),
        ("optimizer.lr", "learning_rate"),
        ("optim/weight-decay", "weight_decay"),
        ("per_device_train_batch_size", "batch_size"),
        ("hidden-size", "width"),
        ("n_layers", "depth"),
        ("temperature", None),
        ("", None),
    ],
)
def test_well_known_names_have_a_role(name: str, role: str | None) -> None:
    assert guess_role(name) == role


def test_a_role_that_is_given_counts_more_than_the_name() -> None:
    space = Space.of(Float("lr", 0.0, 1.0, role="dropout"), Float("rate", 0.1, 1.0, role="learning_rate"))
    assert space.role_of("lr") == "dropout"
    assert space.with_role("learning_rate") == "rate"
    assert space.with_role("momentum") is None


def test_better_follows_the_goal() -> None:
    assert Goal.MAXIMIZE.better(2.0, 1.0)
    assert Goal.MINIMIZE.better(1.0, 2.0)
    for goal in Goal:
        assert not goal.better(1.0, 1.0)
        assert goal.better(1.0, None)
        assert goal.better(goal.sign * 2, goal.sign * 1)
