"""Halving with pauses: who goes on, who is asked again, and what trials of different ages would come to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Curves, Problem, halving

RUNG, END = 2, 20


def _problem(goal: Goal = Goal.MAXIMIZE, max_epochs: int = END, max_trials: int = 64) -> Problem:
    return Problem(Space.of(Float("x", 0, 1)), goal, max_epochs, max_trials, 0)


def _at(epoch: int, *values: float, goal: Goal = Goal.MAXIMIZE) -> Curves:
    """Trials "0", "1", … that stand at `epoch` with these values."""
    curves = Curves(goal)
    for trial, value in enumerate(values):
        for before in range(1, epoch + 1):
            curves.add(str(trial), before, value)
    return curves


@pytest.mark.parametrize(("max_epochs", "epoch"), [(1, None), (2, 1), (4, 1), (10, 1), (20, 2), (100, 10)])
def test_trials_pause_after_a_tenth(max_epochs: int, epoch: int | None) -> None:
    assert halving.rung(max_epochs) == epoch


@pytest.mark.parametrize(("goal", "never"), [(Goal.MAXIMIZE, math.inf), (Goal.MINIMIZE, -math.inf)])
def test_nobody_goes_on_before_there_is_company(goal: Goal, never: float) -> None:
    problem, curves = _problem(goal), _at(RUNG, 1, 2, 3, 4, 5, goal=goal)

    assert halving.bar(problem, curves, 5) == never
    assert halving.worthy(problem, curves, 5, set("01234")) == []


@pytest.mark.parametrize(("goal", "best"), [(Goal.MAXIMIZE, ["8", "7", "6"]), (Goal.MINIMIZE, ["0", "1", "2"])])
def test_the_best_third_goes_on_the_best_first(goal: Goal, best: list[str]) -> None:
    curves = _at(RUNG, *range(9), goal=goal)

    assert halving.worthy(_problem(goal), curves, 9, set("012345678")) == best


def test_who_was_behind_is_asked_again_when_worse_ones_came() -> None:
    values = [5.0, 9.0, 8.0, 1.0, 2.0, 3.0]
    assert halving.worthy(_problem(), _at(RUNG, *values), 6, {"0"}) == []

    assert halving.worthy(_problem(), _at(RUNG, *values, 0.0, 0.0, 0.0), 9, {"0"}) == ["0"]


def test_who_is_paused_further_on_is_judged_by_its_first_look() -> None:
    """Given older versions paused a second time, at six epochs of twenty."""
    curves = _at(RUNG, *range(9))
    for trial in "08":
        for epoch in range(RUNG + 1, 7):
            curves.add(trial, epoch, 100.0)

    assert halving.worthy(_problem(), curves, 9, {"0", "8"}) == ["8"]


@pytest.mark.parametrize("goal", [Goal.MAXIMIZE, Goal.MINIMIZE])
@pytest.mark.parametrize("place", [0, 4, 8])
def test_the_default_goes_on_before_all_others_whatever_it_came_to(goal: Goal, place: int) -> None:
    default = str(place)
    curves, paused = _at(RUNG, *range(9), goal=goal), set("012345678")
    others = [trial for trial in halving.worthy(_problem(goal), curves, 9, paused) if trial != default]

    assert halving.worthy(_problem(goal), curves, 9, paused, default) == [default, *others]


def test_the_default_waits_for_no_company() -> None:
    paused = set("012")

    assert halving.worthy(_problem(), _at(RUNG, 1, 2, 3), 3, paused, "0") == ["0"]


def test_without_new_settings_half_goes_on_and_never_nobody() -> None:
    problem = _problem(max_trials=5)

    assert halving.worthy(problem, _at(RUNG, 1, 2, 3, 4, 5), 5, set("01234")) == ["4", "3", "2"]
    assert halving.worthy(problem, _at(RUNG, 7), 5, {"0"}) == ["0"]


def test_equals_go_on_together() -> None:
    curves = _at(RUNG, *[0.5] * 9)

    assert len(halving.worthy(_problem(), curves, 9, set("012345678"))) == 9


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 9))
def test_a_worse_trial_never_goes_on_before_a_better_one(values: list[int], more: int) -> None:
    curves = _at(RUNG, *values)
    worthy = halving.worthy(_problem(), curves, len(values) + more, {str(one) for one in range(len(values))})
    kept = [values[int(trial)] for trial in worthy]

    assert kept == sorted(kept, reverse=True)
    assert not kept or all(value < kept[-1] for one, value in enumerate(values) if str(one) not in worthy)


def _rising(end: float, epochs: int) -> list[float]:
    return [end * (1.0 - 0.8**epoch) for epoch in range(1, epochs + 1)]


def _expected(curves: Sequence[Sequence[float]]) -> list[float]:
    told, silent = halving.foreseen(_problem(), [({"x": 0.5}, curve) for curve in curves])
    assert silent == []
    return [one.value for one in told if one.value is not None]


def test_trials_of_one_age_are_told_as_they_stand() -> None:
    assert _expected([_rising(1.0, 2), _rising(2.0, 3)]) == pytest.approx([0.36, 0.72])


def test_who_ended_is_told_as_measured_and_the_others_among_them() -> None:
    ends = [1.0, 0.9, 0.8, 0.7, 0.6]
    expected = _expected([*(_rising(end, END) for end in ends), _rising(0.95, RUNG), _rising(0.5, 6)])

    assert expected[:5] == pytest.approx([_rising(end, END)[-1] for end in ends])
    assert expected[2] < expected[5] < expected[0]
    assert expected[6] < expected[4]


def test_before_the_first_rung_a_trial_says_nothing() -> None:
    told, silent = halving.foreseen(_problem(), [({"x": 0.1}, [0.5]), ({"x": 0.2}, [0.5, 0.6]), ({"x": 0.3}, [])])

    assert [one.configuration for one in told] == [{"x": 0.2}]
    assert silent == [{"x": 0.1}, {"x": 0.3}]


@pytest.mark.parametrize(("goal", "order"), [(Goal.MAXIMIZE, [1, 3, 0, 4]), (Goal.MINIMIZE, [4, 0, 3, 1])])
def test_the_most_promising_is_who_would_come_furthest(goal: Goal, order: list[int]) -> None:
    """Given two that are at an end, and two behind them by what they showed, one silent one is left out."""
    curves = [_rising(0.8, END), _rising(0.99, END), [], _rising(0.9, 6), _rising(0.3, RUNG)]

    assert halving.promising(_problem(goal), curves) == order


def test_values_beyond_all_numbers_spoil_nothing() -> None:
    expected = _expected([_rising(1.0, END), [-math.inf] * 2, _rising(0.9, 2)])

    assert expected[1] == -math.inf
    assert np.isfinite([expected[0], expected[2]]).all()


def test_who_began_beyond_all_numbers_is_told_as_it_ended() -> None:
    assert _expected([[-math.inf, -math.inf, *_rising(0.7, END)[2:]]]) == [pytest.approx(_rising(0.7, END)[-1])]


def test_a_trial_of_one_epoch_is_told_as_measured() -> None:
    told, _ = halving.foreseen(_problem(max_epochs=1), [({"x": 0.5}, [0.4]), ({"x": 0.6}, [0.3])])

    assert [one.value for one in told] == [0.4, 0.3]
