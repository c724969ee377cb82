"""Stopping policies, as thresholds, against what their papers say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Curves, Problem, StoppingPolicy, thresholds
from metalearner.stopping import asha_rungs


def _problem(goal: Goal = Goal.MAXIMIZE, max_epochs: int = 27) -> Problem:
    return Problem(Space.of(Float("x", 0, 1)), goal, max_epochs, 100, 0)


def _curves(curves: Sequence[Sequence[float]], goal: Goal = Goal.MAXIMIZE) -> Curves:
    told = Curves(goal)
    for trial, curve in enumerate(curves):
        for epoch, value in enumerate(curve, start=1):
            told.add(str(trial), epoch, value)
    return told


def _flat(*values: float, goal: Goal = Goal.MAXIMIZE) -> Curves:
    return _curves([[value] * 27 for value in values], goal)


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

    found = thresholds(_problem(max_epochs=20), _curves(curves.tolist()), StoppingPolicy.MEDIAN, [6])

    assert found[6] == pytest.approx(np.median([np.mean(curve[:6]) for curve in curves]))


def test_median_waits_for_five_trials() -> None:
    assert thresholds(_problem(), _flat(1, 2, 3, 4), StoppingPolicy.MEDIAN, [5]) == {}


def test_auto_stops_the_worse_half_from_a_tenth_of_the_budget_on() -> None:
    found = thresholds(_problem(max_epochs=30), _flat(*range(1, 11)), StoppingPolicy.AUTO, range(1, 28))

    assert list(found) == list(range(3, 28))
    # Of ten trials those below the fifth fall behind, as four of nine would.
    assert set(found.values()) == {5.0}


def test_auto_waits_for_five_trials() -> None:
    assert thresholds(_problem(), _flat(1, 2, 3, 4), StoppingPolicy.AUTO, range(1, 28)) == {}
    assert thresholds(_problem(), _flat(1, 2, 3, 4, 5), StoppingPolicy.AUTO, range(1, 28)) != {}


def test_auto_stops_nobody_among_equals() -> None:
    """Values of coarse metrics are often alike: who stands at the threshold goes on."""
    found = thresholds(_problem(), _flat(*[0.5] * 20), StoppingPolicy.AUTO, [20])

    assert found == {20: 0.5}


def test_thresholds_see_the_best_so_far_and_not_the_last_value() -> None:
    curves = [[float(trial), *([-1.0] * 26)] for trial in range(10)]

    assert thresholds(_problem(), _curves(curves), StoppingPolicy.AUTO, [20])[20] == 4.0


def test_a_goal_turns_everything_round() -> None:
    values = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0]
    up = thresholds(_problem(), _flat(*values), StoppingPolicy.ASHA, [9])
    down = thresholds(
        _problem(Goal.MINIMIZE), _flat(*(-value for value in values), goal=Goal.MINIMIZE), StoppingPolicy.ASHA, [9]
    )

    assert down[9] == -up[9]


def test_the_last_epoch_stops_nobody() -> None:
    assert 27 not in thresholds(_problem(), _flat(*range(1, 30)), StoppingPolicy.MEDIAN, range(1, 28))


def test_values_that_are_no_numbers_are_worst_and_stop_nobody() -> None:
    curves = [*[[value] * 27 for value in (1.0, 2.0, 3.0)], *([[math.nan] * 27] * 20)]

    assert thresholds(_problem(), _curves(curves), StoppingPolicy.AUTO, [20]) == {}


def test_without_a_trial_there_is_nothing_to_ask() -> None:
    for policy in StoppingPolicy:
        assert thresholds(_problem(), Curves(Goal.MAXIMIZE), policy, range(1, 28)) == {}
