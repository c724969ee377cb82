"""Tree-structured Parzen estimator, for spaces that are mostly conditional or discrete.

Bergstra et al. 2011, with the joint kernel of Falkner et al. 2018 (BOHB) and Watanabe 2023 (arXiv 2304.11127):
    l(x) = sum_i w_i prod_j k_j(x_j | x_ij)  over the good results, g(x) the same over the others; maximise l / g.
Symbols: D dimensions, c components (results and one flat prior component), m candidates. An inactive dimension of a
component says nothing, so its kernel is flat there; an inactive dimension of a candidate does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp, ndtr

from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.memory import History
from metalearner.values import Effort

_CANDIDATES = {Effort.FAST: 48, Effort.THOROUGH: 256}
_MAX_GOOD = 25
_MAX_COMPONENTS = 200
_GOOD_SHARE = 0.15
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def suggest(history: History, pending: Sequence[Array], effort: Effort, generator: np.random.Generator) -> Array | None:
    """The row, among samples from the good results' density, that is likeliest to be good; None if all are known.

    Pending rows count among the others: being tried is a reason to look elsewhere.
    """
    encoding = history.encoding
    order = np.argsort(history.losses, kind="stable")
    good = min(max(math.ceil(_GOOD_SHARE * len(order)), 2), _MAX_GOOD)
    better = history.rows[order[:good]]
    rest = history.rows[order[good:]]
    if len(rest) > _MAX_COMPONENTS:
        rest = rest[np.linspace(0, len(rest) - 1, _MAX_COMPONENTS).astype(np.intp)]
    worse = np.concatenate([rest, *(row[None, :] for row in pending)])
    likely, unlikely = Parzen(encoding, better), Parzen(encoding, worse)
    rows = encoding.rows(likely.sample(_CANDIDATES[effort], generator))
    ratio = likely.log_density(rows) - unlikely.log_density(rows)
    for row in rows[np.argsort(-ratio, kind="stable")]:
        if not history.has(row, pending):
            return np.asarray(row)
    return None


class Parzen:
    """The density of rows around given ones (c - 1, D), mixed with a flat one."""

    def __init__(self, encoding: Encoding, rows: Array) -> None:
        self._encoding = encoding
        self._rows = rows
        count = len(rows)
        width = encoding.width
        active = np.maximum((~np.isnan(rows)).sum(0), 1)  # (D,)
        deviation = np.array(
            [float(np.nanstd(column)) if n > 1 else 0.3 for column, n in zip(rows.T, active, strict=True)]
        )
        scott = active ** (-1.0 / (width + 4.0))
        floor = 1.0 / np.minimum(100.0, 4.0 + 2.0 * active)
        self._bandwidths = np.clip(deviation * scott, floor, 0.5)
        levels = np.array([dimension.levels for dimension in encoding.dimensions])
        self._stay = np.array(
            [1.0 - (k - 1.0) / k / (1.0 + 0.5 * n) if k else 0.0 for k, n in zip(levels, active, strict=True)]
        )
        self._log_weights = np.full(count + 1, -math.log(count + 1.0))

    def sample(self, count: int, generator: np.random.Generator) -> Array:
        """Points of the cube, not yet snapped: (count, D)."""
        width = self._encoding.width
        flat = generator.random((count, width))
        picks = generator.integers(len(self._rows) + 1, size=count)
        noise = generator.standard_normal((count, width))
        stays = generator.random((count, width)) < self._stay
        if not len(self._rows):
            return flat
        centers = self._rows[np.minimum(picks, len(self._rows) - 1)]
        result = centers + noise * self._bandwidths
        result = np.abs(result)
        result = np.clip(np.where(result > 1.0, 2.0 - result, result), 0.0, 1.0)
        for j, dimension in enumerate(self._encoding.dimensions):
            if dimension.unordered:
                result[:, j] = np.where(stays[:, j], centers[:, j], flat[:, j])
        return np.where((picks == len(self._rows))[:, None] | np.isnan(centers), flat, result)

    def log_density(self, rows: Array) -> Array:
        """(m, D) -> (m,), relative to the uniform density."""
        total = np.zeros((len(rows), len(self._rows) + 1))
        for j, dimension in enumerate(self._encoding.dimensions):
            x, centers = rows[:, j][:, None], self._rows[:, j][None, :]
            if dimension.unordered:
                levels = dimension.levels
                same = math.log(self._stay[j] * levels) if levels > 1 else 0.0
                other = math.log((1.0 - self._stay[j]) * levels / (levels - 1)) if levels > 1 else 0.0
                term = np.where(np.abs(x - centers) < 1e-9, same, other)
            else:
                term = _log_truncated_normal(x, centers, float(self._bandwidths[j]), dimension.grid)
            total[:, :-1] += np.where(np.isnan(x) | np.isnan(centers), 0.0, term)
        return np.asarray(logsumexp(total + self._log_weights, axis=1))


def _log_truncated_normal(x: Array, centers: Array, width: float, grid: Array | None) -> Array:
    """Log density on [0, 1] of a normal cut at both ends; on a grid, of the cell around x."""
    inside = np.log(ndtr((1.0 - centers) / width) - ndtr(-centers / width))
    if grid is None:
        return np.asarray(-0.5 * ((x - centers) / width) ** 2 - math.log(width) - _HALF_LOG_2PI - inside)
    half = 0.5 / len(grid)
    cell = ndtr((x + half - centers) / width) - ndtr((x - half - centers) / width)
    return np.asarray(np.log(np.maximum(cell, 1e-300) * len(grid)) - inside)
