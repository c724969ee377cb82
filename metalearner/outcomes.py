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
from scipy.special import ndtri

from foretune.metrics import Goal
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
        return float(np.interp(score, self.scores, self.losses))


def warp(losses: Array) -> tuple[Scale, Array]:
    """The scale that `losses` (n,) define, and their scores (n,) on it. Infinite losses rank last."""
    order = np.argsort(losses, kind="stable")
    ascending = losses[order]
    n = len(losses)
    feasible = ascending[: np.count_nonzero(np.isfinite(ascending))]
    if len(feasible) == 0 or n < 2:
        flat = Scale(feasible[:1] if len(feasible) else np.zeros(1), np.zeros(1), 0.0)
        return flat, np.zeros(n)
    median = 0.5 * float(feasible[(len(feasible) - 1) // 2] + feasible[len(feasible) // 2])
    good = feasible[feasible <= median]
    spread = math.sqrt(float(np.mean((good - median) ** 2)))
    if spread <= 1e-12 * max(abs(median), 1e-300):
        spread = 0.0
    # Ties share their mean rank.
    ranks = 0.5 * (np.searchsorted(ascending, ascending) + np.searchsorted(ascending, ascending, side="right") - 1)
    quantiles = (ranks + 0.5) / n
    at_median = float(np.interp(median, feasible, quantiles[: len(feasible)]))
    linear = (ascending - median) / spread if spread else np.zeros(n)
    warped = ndtri(quantiles) - ndtri(min(max(at_median, 0.5 / n), 1 - 0.5 / n))
    raw = np.where(ascending <= median, linear, warped)
    center, deviation = float(raw.mean()), float(raw.std())
    deviation = deviation if deviation > 1e-9 else 1.0
    scores_ascending = (raw - center) / deviation
    scores = np.empty(n)
    scores[order] = scores_ascending
    return Scale(feasible, scores_ascending[: len(feasible)], 1.0 / (spread * deviation) if spread else 0.0), scores


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
    losses = [min(low, median - step), median, max(high, median + step)]
    # `sign` turns a value so that more is better, so it also turns a loss back into a value.
    bounds = plausible((-goal.sign * scale.losses).tolist())
    values = sorted(np.clip([-goal.sign * loss for loss in losses], *bounds).tolist())
    return Prediction(median=values[1], low=values[0], high=values[2])
