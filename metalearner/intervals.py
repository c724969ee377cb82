"""Intervals that hold what they promise: a forecast is stretched until it covers as often as it says.

A forecast of a loss is a median and the distances to its 10 % and 90 % quantiles. An outcome's *residual* is where it
fell, in those units: -1 at the lower end, 0 at the median, 1 at the upper end. Residuals of histories that were
foreseen without themselves say how wrong forecasts are, and their quantiles make the next one's ends (conformal
prediction with an adaptive score: Lei et al. 2018, arXiv 1604.04173; Romano et al. 2019, arXiv 1905.03222). While there
are few, pseudo-residuals stand in for those that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from metalearner.arrays import Array

COVERAGE = 0.8
_FARTHEST = 20.0
_PSEUDO = 20
"""So many residuals of a forecast that is right stand in where there are none."""
_A_HISTORY = 3
"""So many residuals, of one history, take the place of one."""
_Z80 = 1.2815515655446004
"""Ten percent of a normal distribution lie beyond it on each side."""
_NARROWEST = 0.05
"""Of the whole interval; each side has at least this share."""
_LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class Forecast:
    """Losses: the median, and how far below and above it the 10 % and 90 % quantiles lie."""

    median: float
    below: float
    above: float

    @staticmethod
    def of(low: float, median: float, high: float) -> Forecast:
        """From the three quantiles, in ascending order."""
        least = max(_NARROWEST * (high - low), _LEAST_SPREAD * max(abs(median), 1e-300))
        return Forecast(median, max(median - low, least), max(high - median, least))

    def residual(self, loss: float) -> float:
        """Where an outcome fell; infinite ones, diverged, as far up as any."""
        distance = loss - self.median
        unit = self.below if distance < 0.0 else self.above
        return float(np.clip(distance / unit, -_FARTHEST, _FARTHEST))

    def loss(self, residual: float) -> float:
        """The outcome that has this residual."""
        return self.median + residual * (self.below if residual < 0.0 else self.above)


@dataclass(frozen=True)
class Calibration:
    """The residuals at which the median and the ends of the 80 % interval lie."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(residuals: Sequence[float]) -> Calibration:
        """From as many residuals as there are; none are needed."""
        missing = max(_PSEUDO - len(residuals) // _A_HISTORY, 0)
        usual = ndtri((np.arange(missing) + 0.5) / max(missing, 1)) / _Z80
        together = np.sort(np.concatenate([usual, np.array(residuals, dtype=np.float64)]))
        tail = 0.5 * (1.0 - COVERAGE)
        return Calibration(*(_quantile(together, share) for share in (tail, 0.5, 1.0 - tail)))

    def covers(self, residual: float) -> bool:
        return self.low <= residual <= self.high


def coverage(residuals: Sequence[Sequence[float]]) -> float | None:
    """How often the interval that all others make holds a history's outcomes; None without any.

    `residuals`: those of each history.
    """
    hits = []
    for place, own in enumerate(residuals):
        others = [one for other, group in enumerate(residuals) if other != place for one in group]
        calibration = Calibration.of(others)
        hits.extend([calibration.covers(one) for one in own])
    return float(np.mean(hits)) if hits else None


def _quantile(ascending: Array, share: float) -> float:
    """The conformal quantile: of n + 1 places, outwards."""
    n = len(ascending)
    place = share * (n + 1) - 1.0
    place = np.floor(place) if share < 0.5 else np.ceil(place) if share > 0.5 else place
    return float(np.interp(place, np.arange(n), ascending))
