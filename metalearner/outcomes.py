"""Outcomes as a Gaussian process likes them: less is better, unit scale, no tail on the bad side.

A *loss* is the metric turned so that less is better; infinite for a diverged trial. The *score* of a loss is linear
below the median (on the good side, where differences matter) and the normal quantile of its rank above it ("half-rank
warping", Song et al. 2024, The Vizier Gaussian process bandit algorithm, arXiv 2408.11527, section 3.3), so that a
diverged trial is the worst rank and nothing more. Scores are then standardised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretune.metrics import Goal
from metalearner import compiled_outcomes as loops
from metalearner.arrays import Array
from metalearner.values import Prediction

_Z80 = 1.2815515655446004
"""Ten percent of a normal distribution lie beyond it on each side."""


@dataclass(frozen=True)
class Scale:
    """The map between losses and scores, with the knots that undo its warped part."""

    losses: Array  # (k,), ascending and different
    scores: Array  # (k,), ascending
    slope: float
    """Score for each unit of loss on the linear side; 0 when all losses are alike."""

    def score(self, losses: Array) -> Array:
        """Scores of losses: (m,) -> (m,); infinite losses get the worst."""
        inside = np.interp(losses, self.losses, self.scores)
        below = self.scores[0] + (losses - self.losses[0]) * self.slope
        return np.where(losses < self.losses[0], below, inside)

    def values(self, scores: Array) -> Array:
        """`loss` of each score, any shape -> the same shape."""
        inside = np.interp(scores, self.scores, self.losses)
        if not self.slope:
            return np.asarray(inside)
        below = self.losses[0] + (scores - self.scores[0]) / self.slope
        return np.where(scores < self.scores[0], below, inside)

    def loss(self, score: float) -> float:
        """The loss at a score; beyond the worst seen it is the worst seen."""
        if score < self.scores[0]:
            return (
                float(self.losses[0] + (score - self.scores[0]) / self.slope) if self.slope else float(self.losses[0])
            )
        return loops.interpolated(score, self.scores, self.losses)


def warp(losses: Array) -> tuple[Scale, Array]:
    """The scale that `losses` (n,) define, and their scores (n,) on it. Infinite losses rank last."""
    order = np.argsort(losses, kind="stable")
    ascending = losses[order]
    feasible = int(np.searchsorted(ascending, np.inf))
    if feasible == 0 or len(losses) < 2:
        return Scale(ascending[:1] if feasible else np.zeros(1), np.zeros(1), 0.0), np.zeros(len(losses))
    found, slope = loops.scores(ascending, feasible)
    scores = np.empty(len(losses))
    scores[order] = found
    return Scale(ascending[:feasible], found[:feasible], slope), scores


def plausible(values: Sequence[float]) -> tuple[float, float]:
    """What no value of a metric is expected beyond: a share stays a share, and what was never negative stays so."""
    if not len(values) or min(values) < 0.0:
        return -math.inf, math.inf
    return 0.0, 1.0 if max(values) <= 1.0 else math.inf


def prediction(scale: Scale, goal: Goal, mean: float, variance: float, step: float = 0.0) -> Prediction:
    """The 80 % interval of a normal score, in the metric's own units and within what is plausible of it.

    `step`: what the metric cannot tell apart; the interval reaches as far on both sides.
    """
    deviation = math.sqrt(max(variance, 0.0))
    low, median, high = (scale.loss(mean + z * deviation) for z in (-_Z80, 0.0, _Z80))
    losses = (min(low, median - step), median, max(high, median + step))
    # `sign` turns a value so that more is better, so it also turns a loss back into a value.
    least, most = plausible([-goal.sign * float(end) for end in scale.losses[[0, -1]]])
    values = sorted(min(max(-goal.sign * loss, least), most) for loss in losses)
    return Prediction(median=values[1], low=values[0], high=values[2])
