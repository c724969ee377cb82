"""Results that were told twice, and proposals that look elsewhere then."""

from __future__ import annotations

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Effort, Memory, Observation, Problem, propose
from metalearner.sameness import sameness

SPACE = Space.of(*(Float(f"x{i}", 0.0, 1.0) for i in range(5)))


def test_different_results_say_nothing() -> None:
    assert sameness(np.random.default_rng(0).random((20, 3)), np.arange(20.0)) is None
    assert sameness(np.empty((0, 3)), np.empty(0)) is None


def test_trials_that_diverged_are_not_the_same() -> None:
    assert sameness(np.random.default_rng(0).random((20, 3)), np.array([0.1, 0.2] + [np.inf] * 18)) is None


def test_equal_results_far_apart_are_a_coincidence() -> None:
    places = np.array([[0.0], [0.1], [0.5], [1.0]])

    assert sameness(places, np.array([1.0, 2.0, 3.0, 1.0])) is None


def test_the_chance_falls_with_distance_from_what_was_equal_to_what_was_different() -> None:
    # Equal neighbours are .1 apart and .05, the one that differs from its neighbour is .5 away.
    same = sameness(np.array([[0.0], [0.1], [0.4], [0.45], [0.95]]), np.array([5.0, 5.0, 3.0, 3.0, 1.0]))
    assert same is not None

    news = np.exp(same.log_news(np.array([[0.0], [0.53], [0.7]])))

    assert news == pytest.approx([1 / 5, 1 / 3, 1.0])
    assert np.exp(same.log_news(np.array([[0.7]]), np.array([[0.7]]))) == pytest.approx([1 / 5])


def _distinct(seed: int, effort: Effort) -> int:
    """How many of 200 configurations were run, of which a client takes the nearest to what is proposed."""
    cells = np.random.default_rng(3).random((200, 5))
    losses = ((cells - 0.7) ** 2).sum(1) + 0.3 * np.random.default_rng(4).random(200)
    problem = Problem(SPACE, Goal.MINIMIZE, 1, 100, seed)
    memory, seen = Memory(), []
    observations: list[Observation] = []
    for index in range(40):
        configuration = propose(problem, observations, [], 1, index=index, memory=memory, effort=effort)[
            0
        ].configuration
        seen.append(int(((cells - np.array(list(configuration.values()), dtype=float)) ** 2).sum(1).argmin()))
        observations.append(Observation(configuration, float(losses[seen[-1]])))
    return len(set(seen))


@pytest.mark.parametrize("effort", list(Effort))
def test_a_client_that_runs_the_nearest_of_few_configurations_sees_many_of_them(effort: Effort) -> None:
    # Of 40 trials; without looking for what is new they are 12 to 17.
    assert sum(_distinct(seed, effort) for seed in range(3)) >= 3 * 20
