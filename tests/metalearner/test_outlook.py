"""What a stopped trial would have come to, against orders that are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Observation, Problem
from metalearner.memory import History
from metalearner.outlook import outlook


def test_the_order_at_the_epoch_is_the_order_at_the_end() -> None:
    finished = np.array([[0.9, 0.5], [0.8, 0.1], [0.6, 0.3]])
    # Places .6, .8, .9 lead to .1, .3, .5; between them in proportion, beyond them as far as the nearest.
    losses = np.array([0.6, 0.7, 0.85, 0.9, 0.5, 1.2])
    expected = outlook(finished, np.ones(6, dtype=np.intp), losses)
    assert np.allclose(expected, [0.1, 0.2, 0.4, 0.5, 0.0, 0.8])


def test_equals_share_what_they_came_to() -> None:
    finished = np.array([[0.5, 0.1], [0.5, 0.3]])
    assert np.allclose(outlook(finished, np.array([1]), np.array([0.5])), [0.2])


def test_where_nothing_is_known_the_loss_stands_for_itself() -> None:
    finished = np.array([[np.nan, 0.2]])
    epochs, losses = np.array([1, 2, 3, 0, 2]), np.array([0.5, 0.5, 0.5, 0.5, np.inf])
    assert np.array_equal(outlook(finished, epochs, losses), [0.5, 0.5, 0.5, 0.5, np.inf])
    assert np.array_equal(outlook(np.empty((0, 0)), epochs, losses), losses)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 6))
def test_it_never_gets_worse_and_keeps_the_order(seed: int, trials: int, epochs: int) -> None:
    generator = np.random.default_rng(seed)
    finished = np.minimum.accumulate(generator.choice([0.1, 0.2, 0.4, 0.8], (trials, epochs)), axis=1)
    losses = np.sort(generator.normal(0.4, 0.4, 12))
    expected = outlook(finished, np.full(12, generator.integers(1, epochs + 1)), losses)
    assert (expected <= losses + 1e-12).all()
    assert (np.diff(expected) >= -1e-12).all()


def test_only_earlier_results_tell() -> None:
    """What is expected of the first observations does not depend on later ones, so that a proposal can be replayed."""
    problem = Problem(Space.of(Float("x", 0.0, 1.0)), Goal.MAXIMIZE, max_epochs=3, max_trials=9, seed=0)
    stopped = Observation({"x": 0.1}, 0.4, finished=False, epochs=1)
    finished = Observation({"x": 0.2}, 0.9, curve=(0.5, 0.7, 0.9), epochs=3)
    better = Observation({"x": 0.3}, 0.95, curve=(0.4, 0.7, 0.95), epochs=3)
    history = History(problem)
    history.extend([stopped, finished, better])
    assert np.allclose(history.expected(1), [-0.4])
    assert np.allclose(history.expected(2), [-0.8, -0.9])
    assert np.allclose(history.expected(3), [-0.9, -0.9, -0.95])
    assert np.allclose(history.losses, [-0.4, -0.9, -0.95])
