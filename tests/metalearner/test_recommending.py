"""Recommendations from an experiment's own results."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from foretune.metrics import Goal
from foretune.parameters import Float, Int
from foretune.spaces import Configuration, Space
from metalearner import Observation, Problem, recommend
from metalearner.values import Prediction

SPACE = Space.of(Float("lr", 1e-5, 1.0, log=True), Int("width", 8, 512, log=True))


def _problem(goal: Goal = Goal.MINIMIZE) -> Problem:
    return Problem(SPACE, goal, 10, 100, 0)


def _results(count: int, noise: float, goal: Goal = Goal.MINIMIZE) -> list[Observation]:
    generator = np.random.default_rng(0)
    observations = []
    for _ in range(count):
        configuration = SPACE.from_unit(list(generator.random(2)))
        loss = _loss(configuration) + noise * generator.standard_normal()
        observations.append(Observation(configuration, -goal.sign * loss))
    return observations


def _loss(configuration: Configuration) -> float:
    rate = math.log10(float(configuration["lr"]))  # type: ignore[arg-type]
    return (rate + 2.5) ** 2 + 0.1 * abs(math.log2(float(configuration["width"])) - 6)  # type: ignore[arg-type]


def test_without_results_the_experts_default_is_all_there_is() -> None:
    default: Configuration = {"lr": 1e-3, "width": 64}

    found = recommend(_problem(), [], default, 3)

    assert [item.configuration for item in found.items] == [default]
    assert found.confidence == "none"
    assert recommend(_problem(), [], None, 3).items == ()


def test_results_that_all_diverged_are_no_results() -> None:
    diverged = [Observation({"lr": 0.5, "width": 8}, None, infeasible=True)] * 5

    assert recommend(_problem(), diverged, None, 3).confidence == "none"


def test_one_result_is_recommended_as_it_is() -> None:
    found = recommend(_problem(), _results(1, 0.0), None, 3)

    assert [item.origin for item in found.items] == ["best_seen"]
    assert found.confidence == "low"


def test_what_is_predicted_best_is_better_than_what_was_seen() -> None:
    observations = _results(25, 0.0)

    found = recommend(_problem(), observations, None, 5)

    predicted = next(item for item in found.items if item.origin == "best_predicted")
    assert _loss(predicted.configuration) < min(one.value for one in observations if one.value is not None)
    assert found.confidence == "high"


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    observations = _results(40, 0.3)

    items = recommend(_problem(), observations, None, 20).items

    inside = [
        item.predicted.low <= _loss(item.configuration) <= item.predicted.high for item in items if item.predicted
    ]
    assert np.mean(inside) >= 0.7


def test_values_are_in_the_metrics_own_direction() -> None:
    observations = _results(25, 0.0, Goal.MAXIMIZE)

    found = recommend(_problem(Goal.MAXIMIZE), observations, None, 3)

    seen = next(item for item in found.items if item.origin == "best_seen")
    assert seen.value == max(one.value for one in observations if one.value is not None)
    assert all(item.predicted is None or item.predicted.low <= item.predicted.median for item in found.items)


def test_no_share_above_one_and_no_error_below_zero_is_predicted() -> None:
    rates = np.linspace(0.05, 0.95, 12)
    space = Space.of(Float("x", 0.0, 1.0))

    def predicted(goal: Goal, value: Callable[[float], float]) -> list[Prediction]:
        observations = [Observation({"x": float(rate)}, value(float(rate))) for rate in rates]
        items = recommend(Problem(space, goal, 10, 100, 0), observations, None, 3).items
        return [item.predicted for item in items if item.predicted is not None]

    # The line goes on beyond what can be: at x = 1 the accuracy would be 1.02, the error -.02.
    accuracies = predicted(Goal.MAXIMIZE, lambda x: min(0.4 + 0.62 * x, 1.0))
    errors = predicted(Goal.MINIMIZE, lambda x: max(60.0 - 62.0 * x, 0.0))
    assert len(accuracies) >= 2
    assert len(errors) >= 2
    assert max(one.high for one in accuracies) == 1.0
    assert min(one.low for one in errors) == 0.0
    assert all(one.low <= one.median <= one.high for one in accuracies + errors)


def test_an_interval_is_never_finer_than_the_metric() -> None:
    """Given shares of 360 rows, of which many are equal, no interval claims to tell one row from none."""
    results = [
        Observation(one.configuration, round((1.0 - min(1.0, 0.02 * float(str(one.value)))) * 360) / 360)
        for one in _results(30, 0.0)
    ]

    found = recommend(_problem(Goal.MAXIMIZE), results, None, 5)

    assert len({one.value for one in results}) < len(results)
    for item in found.items:
        assert item.predicted is not None
        low, high = item.predicted.low, item.predicted.high
        assert high - low > 0.99 / 360
        assert (low, high) == (min(low, item.predicted.median), max(high, item.predicted.median))
        assert high <= 1.0
