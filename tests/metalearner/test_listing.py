"""A list goes on as the results of what was tried tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from foretune.metrics import Goal
from metalearner import Memory, Observation, Problem, TaskHistory, informed, propose
from metalearner.listing import Candidates
from metalearner.values import Origin
from tests.metalearner.wrong_histories import SPACE, histories, loss

_PROBLEM = Problem(SPACE, Goal.MINIMIZE, 1, 10, 0, metric="val_loss")


def _candidates() -> Candidates:
    """Two histories that contradict each other on the first two of three settings."""
    means = np.array([[-1.0, 1.0, 0.2], [1.0, -1.0, 0.1]])
    return Candidates(np.array([0.5, 0.5]), means, np.full((2, 3), 0.3), np.array([0.5, 0.7]), np.zeros((2, 4)))


def _of_two_kinds() -> list[TaskHistory]:
    """Three histories of each of two families, whose good settings lie apart."""
    return [*histories("matching", 0)[:3], *histories("matching", 4)[3:]]


class TestWeights:
    def test_one_result_says_nothing(self) -> None:
        assert _candidates().weights_after([0], np.array([3.0])).tolist() == [0.5, 0.5]

    def test_equal_results_say_nothing(self) -> None:
        assert _candidates().weights_after([0, 1], np.array([np.inf, np.inf])).tolist() == [0.5, 0.5]

    def test_a_pair_multiplies_by_the_probability_of_its_order(self) -> None:
        found = _candidates().weights_after([0, 1], np.array([0.1, 0.2]))
        odds = norm.cdf(2.0 / (2 * 0.3**2 + 2 * 0.5**2) ** 0.5) / norm.cdf(-2.0 / (2 * 0.3**2 + 2 * 0.7**2) ** 0.5)
        assert found[0] / found[1] == pytest.approx(odds)
        assert found.sum() == pytest.approx(1.0)

    def test_three_results_count_as_two_pairs(self) -> None:
        candidates, losses = _candidates(), [0.1, 0.2, np.inf]
        whole = candidates.weights_after([0, 1, 2], np.array(losses))
        odds = 1.0
        for left, right in ((0, 1), (0, 2), (1, 2)):
            pair = candidates.weights_after([left, right], np.array([losses[left], losses[right]]))
            odds *= pair[0] / pair[1]
        assert whole[0] / whole[1] == pytest.approx(odds ** (2 / 3))


class TestFollowing:
    def test_without_results_it_is_the_portfolio(self) -> None:
        problem = informed(_PROBLEM, histories("matching"), [0.2] * 6)
        assert problem.knowledge is not None
        shortlist = problem.knowledge.shortlist
        assert shortlist.items[:5] == problem.portfolio
        for count in range(len(shortlist.items)):
            assert shortlist.following([], np.empty(0), list(range(count))) == count
        assert shortlist.following([], np.empty(0), list(range(len(shortlist.items)))) is None

    def test_settings_of_the_histories_that_were_right_come_next(self) -> None:
        """Given two kinds of tasks, once the first results tell the kind, what follows is good for that kind."""
        problem = informed(_PROBLEM, _of_two_kinds(), [0.4] * 6)
        assert problem.knowledge is not None
        shortlist = problem.knowledge.shortlist
        for family in (0, 4):
            losses = np.array([loss(one.configuration, 0, family) for one in shortlist.items])
            tried = [0, 1, 2]
            place = shortlist.following(tried, losses[tried], [])
            assert place is not None
            assert losses[place] < np.median(losses)

    def test_as_many_are_tried_as_the_portfolio_holds_and_none_twice(self) -> None:
        problem = informed(_PROBLEM, _of_two_kinds(), [0.4] * 6)
        proposals = propose(problem, [], [], 8, index=0)
        listed = [one for one in proposals if one.origin is Origin.PORTFOLIO]
        assert len(listed) == len(problem.portfolio)
        assert len({tuple(one.configuration.values()) for one in proposals}) == 8

    def test_what_comes_next_depends_on_results_alone(self) -> None:
        """Neither on what a process remembers nor on how the histories are called and ordered."""
        found = _of_two_kinds()
        renamed = [
            TaskHistory(f"his_{9 - number}", one.task, one.space, one.columns, one.values)
            for number, one in enumerate(found)
        ]
        runs = []
        for given, memory in ((found, Memory()), (found, None), (renamed[::-1], None)):
            problem = informed(_PROBLEM, given, [0.4] * 6)
            observations: list[Observation] = []
            for number in range(5):
                (proposal,) = propose(problem, observations, [], 1, index=number, memory=memory)
                observations.append(Observation(proposal.configuration, loss(proposal.configuration, 0, 4)))
            runs.append([one.configuration for one in observations])
        assert runs[0] == runs[1] == runs[2]
