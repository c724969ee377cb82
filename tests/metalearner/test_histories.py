"""Histories seen from another space, and how like two tasks are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import Space
from metalearner import FeatureLikeness, Task, TaskHistory
from metalearner.encoding import Encoding
from metalearner.histories import Source, look, normal_scores, source
from metalearner.likeness import feature_distance

TASK = Task("val_loss", Goal.MINIMIZE, "dst_1", "mlp", {"rows": 100, "classes": 2})


def history(
    space: Space, columns: dict[str, list[JsonValue]], values: list[float | None], fixed: JsonObject | None = None
) -> TaskHistory:
    return TaskHistory("exp_1", TASK, space, columns, values, fixed or {})


def seen(found: TaskHistory, target: Space, defaults: JsonObject | None = None) -> list[JsonObject]:
    """The history's trials as configurations of the target."""
    encoding = Encoding(target)
    made = source(found, 1.0, encoding, defaults)
    assert made is not None
    return [encoding.decode(row) for row in made.rows]


class TestEncoding:
    def test_values_carry_over_by_role_in_their_own_units(self) -> None:
        theirs = Space.of(Float("lr", 1e-5, 1.0, log=True), Int("hidden_size", 8, 64))
        ours = Space.of(Float("learning_rate", 1e-4, 0.1, log=True), Int("width", 16, 512, log=True))
        found = seen(history(theirs, {"lr": [0.001, 0.02], "hidden_size": [32, 64]}, [1.0, 2.0]), ours)
        assert [one["learning_rate"] for one in found] == [pytest.approx(0.001), pytest.approx(0.02)]
        assert [one["width"] for one in found] == [32, 64]

    def test_a_value_a_little_outside_moves_to_the_end_and_one_far_outside_says_nothing(self) -> None:
        theirs = Space.of(Float("lr", 1e-6, 10.0, log=True))
        ours = Space.of(Float("lr", 1e-3, 0.1, log=True))
        found = seen(history(theirs, {"lr": [0.0006, 0.15, 1e-5, 1.0, 0.01]}, [1.0, 2.0, 3.0, 4.0, 5.0]), ours)
        assert [one["lr"] for one in found] == [pytest.approx(0.001), pytest.approx(0.1), pytest.approx(0.01)]

    def test_what_was_not_tuned_is_what_was_fixed_else_the_default(self) -> None:
        theirs = Space.of(Float("lr", 1e-6, 1.0, log=True))
        ours = Space.of(
            Float("lr", 1e-6, 1.0, log=True), Categorical("batch_size", [16, 64, 256]), Float("dropout", 0.0, 0.5)
        )
        defaults: JsonObject = {"lr": 0.1, "batch_size": 16, "dropout": 0.25}
        found = seen(history(theirs, {"lr": [0.01, 0.02]}, [1.0, 2.0], {"bs": 60}), ours, defaults)
        assert [(one["batch_size"], one["dropout"]) for one in found] == [(64, 0.25)] * 2

    def test_the_smallest_and_the_largest_of_numbers_are_near_to_no_choice(self) -> None:
        theirs = Space.of(Float("batch_size", 5e-324, 1e308, log=True), Float("lr", 1e-6, 1.0, log=True))
        ours = Space.of(Categorical("batch_size", [16, 64, 256]), Float("lr", 1e-6, 1.0, log=True))
        columns: dict[str, list[JsonValue]] = {"batch_size": [5e-324, 1e308, 64, 16], "lr": [0.1, 0.1, 0.01, 0.02]}
        found = seen(history(theirs, columns, [1.0, 2.0, 3.0, 4.0]), ours)
        assert [one["batch_size"] for one in found] == [64, 16]

    def test_choices_shapes_and_conditions(self) -> None:
        ours = Space.of(
            Categorical("optimizer", ["sgd", "adamw"]),
            Float("momentum", 0.0, 0.99, when={"optimizer": ["sgd"]}),
            Bool("nesterov"),
            Schedule(),
        )
        shape: JsonObject = {
            "warmup_fraction": 0.1,
            "plateau_fraction": 0.2,
            "decay_exponent": 2.0,
            "final_fraction": 0.05,
        }
        columns: dict[str, list[JsonValue]] = {
            "optimizer": ["SGD", "adamw", "lion"],
            "momentum": [0.5, None, None],
            "nesterov": [True, False, True],
            "lr_schedule": [shape, shape, shape],
        }
        theirs = Space.of(
            Categorical("optimizer", ["SGD", "adamw", "lion"]),
            Float("momentum", 0.0, 0.99, when={"optimizer": ["SGD"]}),
            Bool("nesterov"),
            Schedule(),
        )
        first, second = seen(history(theirs, columns, [1.0, 2.0, 3.0]), ours)
        assert (first["optimizer"], first["momentum"], first["nesterov"]) == ("sgd", pytest.approx(0.5), True)
        assert "momentum" not in second
        assert second["lr_schedule"] == pytest.approx(shape)

    def test_a_history_that_says_nothing_is_none(self) -> None:
        lr = Space.of(Float("lr", 1e-6, 1.0, log=True))
        encoding = Encoding(lr)
        other = Space.of(Float("temperature", 0, 1))
        cases: list[tuple[Space, dict[str, list[JsonValue]], list[float | None]]] = [
            (other, {"temperature": [0.1, 0.2]}, [1.0, 2.0]),
            (lr, {"lr": [0.1]}, [1.0]),
            (lr, {"lr": [0.1, 0.2]}, [1.0, 1.0]),
            (lr, {"lr": [0.1, 0.2]}, [None, None]),
            (lr, {"lr": ["a", True]}, [1.0, 2.0]),
            (lr, {}, [1.0, 2.0]),
        ]
        for space, columns, values in cases:
            assert source(history(space, columns, values), 1.0, encoding, None) is None
        assert source(history(lr, {"lr": [0.1, 0.2]}, [1.0, 2.0]), 0.0, encoding, None) is None


class TestOutcomes:
    def test_scores_are_normal_quantiles_of_ranks_and_diverged_is_worst(self) -> None:
        losses = np.array([3.0, 1.0, math.inf, 1.0, math.inf])
        expected = norm.ppf([0.5, 0.2, 0.8, 0.2, 0.8])
        assert normal_scores(losses) == pytest.approx(expected)

    def test_the_goal_decides_what_is_better(self) -> None:
        space = Space.of(Float("lr", 1e-6, 1.0, log=True))
        for goal, best in ((Goal.MINIMIZE, 0), (Goal.MAXIMIZE, 1)):
            found = TaskHistory("x", Task("m", goal), space, {"lr": [0.1, 0.2, 0.3]}, [1.0, 5.0, None])
            made = source(found, 1.0, Encoding(space), None)
            assert isinstance(made, Source)
            assert int(np.argmin(made.scores)) == best
            assert int(np.argmax(made.scores)) == 2
            assert found.best == (1.0, 5.0)[best]


def similarity(task: Task, other: Task) -> float:
    return float(FeatureLikeness().weights(task, [other])[0])


class TestSimilarity:
    def test_the_same_data_and_network_are_alike_in_full(self) -> None:
        assert similarity(TASK, TASK) == 1.0
        assert similarity(TASK, Task("val_accuracy", Goal.MAXIMIZE, "dst_1", "mlp")) == pytest.approx(0.7)
        assert similarity(TASK, Task("val_loss", Goal.MINIMIZE, "dst_1", "cnn")) == pytest.approx(0.3)

    def test_nearer_features_are_more_alike_and_never_as_the_same_data(self) -> None:
        def other(**features: float | str) -> float:
            return similarity(TASK, Task("val_loss", Goal.MINIMIZE, "dst_2", "mlp", features))

        assert 1.0 > other(rows=100, classes=2) > other(rows=1000, classes=2) > other(rows=10**6, classes=100) > 0.0
        assert other(rows=100, classes=0) == 0.0
        assert other(colour=3.0) == pytest.approx(0.2)

    def test_words_are_the_same_or_one_apart(self) -> None:
        assert feature_distance({"modality": "image", "n": 1.0}, {"modality": "text", "n": 1.0}) == pytest.approx(
            math.sqrt(0.5)
        )
        assert feature_distance({"a": 1.0}, {"b": 1.0}) is None


def test_looked_at_together_histories_say_what_they_say_one_by_one() -> None:
    """Given histories of several lengths and spaces, one with trials out of range and one that says nothing."""
    space = Space.of(Float("learning_rate", 1e-4, 1e-1, log=True), Categorical("optimizer", ["sgd", "adamw"]))
    other = Space.of(Float("dropout", 0.0, 0.5), Float("lr", 1e-3, 1.0, log=True))
    task = Task("loss", Goal.MINIMIZE)

    def some() -> list[TaskHistory]:
        rates, words = [1e-3, 1e-2, 0.5, 3e-4], ["sgd", "adamw", "sgd", None]
        return [
            TaskHistory("a", task, space, {"learning_rate": rates, "optimizer": words}, [0.3, 0.1, 0.2, None]),
            TaskHistory("b", task, space, {"learning_rate": rates[:3], "optimizer": words[:3]}, [0.3, 0.1, 0.2]),
            TaskHistory("c", task, other, {"dropout": [0.1, 0.2], "lr": [0.1, 0.01]}, [1.0, 2.0]),
            TaskHistory("d", task, space, {"learning_rate": rates[:2], "optimizer": words[:2]}, [0.3, 0.3]),
            TaskHistory("e", task, space, {"learning_rate": [], "optimizer": []}, []),
        ]

    encoding = Encoding.of(space)
    together = some()
    look(together, encoding, None)
    for left, right in zip(together, some(), strict=True):
        ours, theirs = (source(one, 0.5, encoding, None) for one in (left, right))
        assert (ours is None) == (theirs is None) == (left.reference in "de")
        if ours is not None and theirs is not None:
            assert ours.weight == theirs.weight
            for name in ("rows", "features", "scores", "losses"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
