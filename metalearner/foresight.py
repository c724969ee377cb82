"""What to use on a task before any trial of it has run, with what the histories lead one to expect of it.

A setting's outcome is a mixture over the histories of the same metric: a history's own process says how the setting
ranks there, likeness says how surely that carries over, and the history's own outcomes turn ranks into values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from metalearner import gp
from metalearner.arrays import Array, Index
from metalearner.histories import Source, Task, TaskHistory
from metalearner.outcomes import warp
from metalearner.portfolio import Judged, chosen_trials, item_of, judge, select
from metalearner.values import Confidence, PortfolioItem, Prediction, Problem

_SAME_DATA = 0.99
_ALIKE = 0.3
_VERY_ALIKE = 0.5
_LEVELS_FROM = 3
"""How good a value can be differs from data to data: fewer histories of other data do not tell."""
_SURE_TRIALS = 10
_SURE_HISTORIES = 5
_SURE_SCORE = -0.5
_TELLING = 8
"""Of more histories the heaviest tell the values."""
_ITERATIONS = 15
_UNLIKE = 0.5
"""How far a score may differ, in deviations of a history's outcomes, between tasks that have nothing in common."""
_QUANTILES = (np.arange(41) + 0.5) / 41
_ENDS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Foreseen:
    """A setting that did well on histories, and the value that it should reach, where they tell."""

    item: PortfolioItem
    predicted: Prediction | None


def foresee(
    problem: Problem, task: Task, histories: Sequence[TaskHistory], weights: Sequence[float], count: int
) -> tuple[list[Foreseen], Confidence]:
    """At most `count` settings, what is expected to be best first; none, and confidence `none`, where no history says
    anything about the problem's space. `weights`: how like the task each history is.

    Confidence is `high` where the same data, or several tasks very like it, agree on the first setting.
    """
    judged = judge(problem, histories, weights)
    if judged is None:
        return [], Confidence.NONE
    expected = judged.weights @ judged.penalised  # (C,)
    places = sorted(select(judged, count), key=lambda place: (expected[place], place))
    outcomes = _Outcomes(judged, places, task)
    items = [Foreseen(item_of(judged, place), outcomes.of(position)) for position, place in enumerate(places)]
    return items, Confidence.HIGH if _is_sure(judged, expected[places[0]]) else Confidence.LOW


def _is_sure(judged: Judged, expected: float) -> bool:
    same = any(one.similarity >= _SAME_DATA and len(one.scores) >= _SURE_TRIALS for one in judged.sources)
    like = sum(one.similarity >= _VERY_ALIKE for one in judged.sources)
    return bool(expected <= _SURE_SCORE and (same or like >= _SURE_HISTORIES))


class _Outcomes:
    """What the outcomes of candidates will be, in the metric's units, as the most telling histories have it."""

    def __init__(self, judged: Judged, places: Sequence[int], task: Task) -> None:
        telling = [
            h
            for h, one in enumerate(judged.sources)
            if one.similarity >= _ALIKE and (one.history.task.metric, one.history.task.goal) == (task.metric, task.goal)
        ]
        same = any(judged.sources[h].similarity >= _SAME_DATA for h in telling)
        self._sign = -task.goal.sign
        self._weights = np.repeat(judged.weights[telling[:_TELLING]], len(_QUANTILES))
        self._bounds = _bounds([judged.sources[h] for h in telling])
        self._losses: Array | None = None  # (places, H' Q)
        if len(telling) >= (1 if same else _LEVELS_FROM):
            features = judged.encoding.features(judged.rows[places])
            seen = [_quantiles(judged.sources[h], judged.encoding.groups, features) for h in telling[:_TELLING]]
            self._losses = np.concatenate(seen, axis=1)

    def of(self, position: int) -> Prediction | None:
        """The 80 % interval of the mixture; None where the histories do not tell."""
        if self._losses is None:
            return None
        losses = self._losses[position]
        order = np.argsort(losses, kind="stable")
        cumulative = np.cumsum(self._weights[order]) / self._weights.sum()
        found = losses[order[np.minimum(np.searchsorted(cumulative, _ENDS), len(order) - 1)]]
        low, median, high = sorted(np.clip(self._sign * found, *self._bounds))
        return Prediction(median=float(median), low=float(low), high=float(high))


def _bounds(telling: Sequence[Source]) -> tuple[float, float]:
    """What no value is expected beyond: a share stays a share, and what was never negative stays so."""
    values = [value for one in telling for value in one.history.values if value is not None]
    if not values or min(values) < 0.0:
        return -np.inf, np.inf
    return 0.0, 1.0 if max(values) <= 1.0 else np.inf


def _quantiles(one: Source, groups: Index, features: Array) -> Array:
    """Quantiles of each candidate's loss as one history sees it: (C', P) -> (C', Q)."""
    chosen = chosen_trials(one.scores)
    # Ranks make a peak of the optimum that a smooth process cuts off; these scores are linear where results are good.
    scale, scores = warp(one.losses[chosen])
    kernel = gp.fit(one.features[chosen], scores, groups, gp.Prior(), _ITERATIONS)
    mean, variance = gp.condition(kernel, groups, one.features[chosen], scores).predict(features)
    unlike = _UNLIKE * (1.0 - one.similarity)
    deviation = np.sqrt(variance + kernel.noise + unlike**2)
    return scale.values(mean[:, None] + deviation[:, None] * ndtri(_QUANTILES)[None, :])
