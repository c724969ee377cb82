"""Curves told point by point, in whatever order they arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.metrics import Goal
from metalearner import Curves


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), trials=st.integers(1, 6), epochs=st.integers(1, 8), goal=st.sampled_from(Goal))
def test_the_order_of_arrival_changes_nothing(seed: int, trials: int, epochs: int, goal: Goal) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(trials, epochs))
    points = [(trial, epoch) for trial in range(trials) for epoch in range(epochs)]
    points += points[: len(points) // 2]  # some are told twice
    told = Curves(goal)

    for place in generator.permutation(len(points)):
        trial, epoch = points[place]
        told.add(str(trial), epoch + 1, float(values[trial, epoch]))

    merits = goal.sign * values
    assert told.last_epoch == epochs
    for epoch in range(1, epochs + 1):
        assert list(told.bests(epoch)) == sorted(merits[:, :epoch].max(1))
        assert list(told.means(epoch)) == pytest.approx(sorted(merits[:, :epoch].mean(1)))
    for trial in range(trials):
        assert told.curve(str(trial)) == tuple(goal.sign * np.maximum.accumulate(merits[trial]))


def test_a_curve_counts_up_to_its_first_gap() -> None:
    told = Curves(Goal.MINIMIZE)
    for epoch, value in ((1, 3.0), (2, None), (3, 1.0)):
        told.add("a", epoch, value)

    assert [len(told.bests(epoch)) for epoch in (1, 2, 3)] == [1, 0, 0]

    told.add("a", 2, 2.0)

    assert list(told.bests(3)) == [-1.0]
    assert told.curve("nobody") == ()
