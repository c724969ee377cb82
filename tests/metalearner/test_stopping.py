"""Stopping policies, as thresholds, against what their papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Problem, StoppingPolicy, thresholds
from metalearner.stopping import asha_rungs


def _problem(goal: Goal = Goal.MAXIMIZE, max_epochs: int = 27) -> Problem:
    return Problem(Space.of(Float("x", 0, 1)), goal, max_epochs, 100, 0)


def _flat(*values: float) -> list[list[float]]:
    return [[value] * 27 for value in values]


def test_without_a_policy_nothing_is_stopped() -> None:
    assert thresholds(_problem(), _flat(1, 2, 3), StoppingPolicy.NONE, range(1, 28)) == {}


def test_asha_keeps_the_best_third_at_its_rungs() -> None:
    found = thresholds(_problem(), _flat(*range(1, 10)), StoppingPolicy.ASHA, range(1, 28))

    assert list(found) == [1, 3, 9] == asha_rungs(27)
    # Ten trials with the newcomer: the best three go on.
    assert set(found.values()) == {7.0}


def test_asha_knows_nothing_from_one_result() -> None:
    assert thresholds(_problem(), _flat(5), StoppingPolicy.ASHA, range(1, 28)) == {}


def test_median_compares_with_the_running_means() -> None:
    generator = np.random.default_rng(0)
    curves = generator.random((7, 20))

    found = thresholds(_problem(max_epochs=20), curves.tolist(), StoppingPolicy.MEDIAN, [6])

    assert found[6] == pytest.approx(np.median([np.mean(curve[:6]) for curve in curves]))


def test_median_waits_for_five_trials() -> None:
    assert thresholds(_problem(), _flat(1, 2, 3, 4), StoppingPolicy.MEDIAN, [5]) == {}


def test_auto_is_patient_and_stops_only_the_worst_fifth() -> None:
    curves = _flat(*range(1, 11))

    found = thresholds(_problem(max_epochs=30), curves, StoppingPolicy.AUTO, range(1, 28))

    assert min(found) == 10
    assert set(found.values()) == {2.0}


def test_a_goal_turns_everything_round() -> None:
    values = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0]
    up = thresholds(_problem(), _flat(*values), StoppingPolicy.ASHA, [9])
    down = thresholds(_problem(Goal.MINIMIZE), _flat(*(-value for value in values)), StoppingPolicy.ASHA, [9])

    assert down[9] == -up[9]


def test_the_last_epoch_stops_nobody() -> None:
    assert 27 not in thresholds(_problem(), _flat(*range(1, 30)), StoppingPolicy.MEDIAN, range(1, 28))


def test_diverged_curves_are_worst_and_stop_nobody() -> None:
    curves = [*_flat(1, 2, 3), *([[math.nan] * 27] * 20)]

    assert thresholds(_problem(), curves, StoppingPolicy.AUTO, [20]) == {}
