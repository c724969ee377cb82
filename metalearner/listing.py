"""A greedy list of settings, and how it goes on when some of it has been tried.

Each next setting lowers most the weighted mean over the histories of what the list reaches there. What carries over
from a history to the task is uncertain and independent from setting to setting, so a list is above a level where all
of it is, and its mean is the lowest level and the integral of that probability over levels (`Candidates.limits`).

Results say which histories the task is like. Two settings i, j of which history h thinks μ_i ± s_i and μ_j ± s_j come
out as l_i < l_j with probability Φ((μ_j - μ_i) / (s_i² + s_j² + 2 c_h²)^½), c_h being the deviation of what carries
over. n results are n (n - 1) / 2 such pairs, which hold no more than n - 1 independent ones, so that their mean counts
n - 1 times. A history's weight is multiplied by that likelihood (a ranking loss, as in Feurer et al. 2018, "Scalable
meta-learning for Bayesian optimization using ranking-weighted Gaussian process ensembles").

Symbols: H histories, C candidates, G levels, n results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr

from metalearner.arrays import Array, Index, Mask
from metalearner.encoding import among, comparable
from metalearner.values import PortfolioItem


@dataclass(frozen=True, eq=False)
class Candidates:
    """What H histories think of C settings, in normal scores."""

    weights: Array  # (H,), with sum 1
    means: Array  # (H, C)
    deviations: Array  # (H, C)
    carried: Array  # (H,), the deviation of what carries over to the task
    limits: Array  # (H, G), the score above which a setting is worse than each level

    def above(self) -> Array:
        """The probability that a setting is worse than a level: (H, C, G)."""
        scores = self.means + self.deviations
        return np.asarray(ndtr((scores[:, :, None] - self.limits[:, None, :]) / self.carried[:, None, None]))

    def only(self, places: Sequence[int]) -> Candidates:
        """Some of the settings."""
        return Candidates(self.weights, self.means[:, places], self.deviations[:, places], self.carried, self.limits)

    def weights_after(self, places: Sequence[int], losses: Array) -> Array:
        """The weights of the histories after these settings had these losses (n,), infinite where diverged: (H,)."""
        left, right = np.triu_indices(len(places), 1)
        different = losses[left] != losses[right]
        left, right = left[different], right[different]
        if not len(left):
            return self.weights
        means, variances = self.means[:, places], self.deviations[:, places] ** 2
        gaps = (means[:, right] - means[:, left]) * np.where(losses[left] < losses[right], 1.0, -1.0)
        sizes = np.sqrt(variances[:, left] + variances[:, right] + 2.0 * self.carried[:, None] ** 2)
        told = log_ndtr(gaps / sizes).sum(1) * 2.0 / len(places)
        weights = self.weights * np.exp(told - told.max())
        return np.asarray(weights / weights.sum())


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The settings from which a portfolio goes on: its own first, as many more behind them."""

    items: tuple[PortfolioItem, ...]
    rows: Array  # (C, D)
    candidates: Candidates

    def places(self, rows: Array) -> Index:
        """Where each of some rows stands in the list, -1 where it does not: (m, D) -> (m,)."""
        found = np.full(len(rows), -1, dtype=np.intp)
        if len(rows):
            for place, row in enumerate(comparable(self.rows)):
                found[among(comparable(rows), row[None, :])] = place
        return found

    def following(self, places: Sequence[int], losses: Array, running: Sequence[int]) -> int | None:
        """Which comes next after results (n,) of some, while others run; None where all were tried."""
        tried = [*places, *running]
        allowed = np.ones(len(self.items), dtype=bool)
        allowed[tried] = False
        if not allowed.any():
            return None
        above = self.candidates.above()
        still = above[:, tried].prod(axis=1) * self.candidates.weights_after(places, losses)[:, None]
        return next_of(above, still, allowed)


def next_of(above: Array, still: Array, allowed: Mask) -> int:
    """The candidate that lowers most what is `still` (H, G) to be lowered, of those `allowed` (C,)."""
    totals = (above @ still[:, :, None]).sum((0, 2))  # (C,)
    return int(np.argmin(np.where(allowed, totals, np.inf)))
