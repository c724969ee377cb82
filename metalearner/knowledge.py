"""What histories say of a space, in a form that costs the same however many there were.

Symbols: H histories, A anchors, K directions, P feature columns, m rows.
    μ_h(x)        what history h expects at x, in normal scores, less is better (`metalearner.portfolio`)
    m(x) = Σ_h w_h μ_h(x)                              the common opinion
    μ_h(x) - m(x) ≈ Σ_k v_hk φ_k(x)                    in what histories differ: the K leading principal directions
For a task that is to the histories as they are to each other, m + Σ_k z_k φ_k with z ~ N(0, I) is a prior of its
response surface (a mean and a covariance learned from histories: Wang et al. 2021, HyperBO, arXiv 2109.08215). m and
all φ_k are kept as one expansion over shared anchors: the best settings of the histories and quasi-random points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from metalearner import gp, quasirandom
from metalearner.arrays import Array, Index, ranks
from metalearner.levels import Levels
from metalearner.listing import Shortlist
from metalearner.values import Evidence

DIRECTIONS = 6
SPREAD_ANCHORS = 128
_EVIDENCE = 3
_NUGGET = 1e-3


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Two are equal where they were made of the same histories for the same space, which `digest` says."""

    digest: str
    references: tuple[str, ...]  # (H,)
    similarities: tuple[float, ...]  # (H,)
    bests: tuple[float, ...]  # (H,)
    agreement: float
    weights: Array  # (H,), with sum 1
    loadings: Array  # (H, K)
    rows: Array  # (C, D), settings that were tried elsewhere
    kernel: gp.Kernel
    groups: Index  # (P,)
    anchors: Array  # (A, P), scaled
    coefficients: Array  # (A, 1 + K)
    levels: Levels | None
    shortlist: Shortlist

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Knowledge) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def opinions(self, features: Array) -> Array:
        """m and the φ_k at some rows: (m, P) -> (m, 1 + K)."""
        return np.asarray(
            self.kernel.between(self.kernel.scaled(features, self.groups), self.anchors) @ self.coefficients
        )

    def evidence(self, opinions: Array) -> tuple[Evidence, ...]:
        """The histories that speak most for a row with these opinions (1 + K,)."""
        expected = opinions[0] + self.loadings @ opinions[1:]
        support = self.weights * np.maximum(-expected, 0.0)
        leading = [int(h) for h in np.argsort(-support, kind="stable")[:_EVIDENCE] if support[h] > 0.0]
        return tuple(Evidence(self.references[h], self.similarities[h], self.bests[h]) for h in leading)


def spread(width: int) -> Array:
    """Points all over the cube at which histories are compared: (SPREAD_ANCHORS, D)."""
    return np.array([quasirandom.point(width, 0, index) for index in range(SPREAD_ANCHORS)])


def directions(means: Array, weights: Array) -> tuple[Array, Array]:
    """The common opinion with the directions of difference, and each history's place along them.

    (H, A), (H,) -> (1 + K, A), (H, K). A direction is scaled so that places have unit variance.
    """
    common = weights @ means
    count = min(DIRECTIONS, len(weights) - 1)
    if count <= 0:
        return common[None, :], np.zeros((len(weights), 0))
    roots = np.sqrt(weights)[:, None]
    left, sizes, right = np.linalg.svd(roots * (means - common), full_matrices=False)
    kept = sizes[:count]
    # The sign of a singular vector is arbitrary; this one does not depend on the library.
    signs = np.where(right[:count].sum(1) < 0.0, -1.0, 1.0)
    places = np.where(roots > 1e-9, left[:, :count] / np.maximum(roots, 1e-9), 0.0) * signs
    return np.concatenate([common[None, :], (kept * signs)[:, None] * right[:count]]), places


def expansion(kernel: gp.Kernel, groups: Index, features: Array, values: Array) -> tuple[Array, Array]:
    """Scaled anchors (A, P) and coefficients (A, n) that reproduce `values` (n, A) at `features` (A, P)."""
    posterior = gp.condition(kernel, groups, features, values[0], np.full(len(features), _NUGGET))
    return posterior.points, posterior.solved(values).T


def agreement(means: Array, weights: Array) -> float:
    """How far histories agree on how settings rank, from 0 to 1: (H, A), (H,).

    The weighted mean, over histories, of the rank correlation of each one with the common opinion of the others, less
    what few histories agree on by chance.
    """
    if len(means) < 2:
        return 0.0
    common = weights @ means
    found = 0.0
    for weight, own in zip(weights, means, strict=True):
        if weight < 1.0:
            others = (common - weight * own) / (1.0 - weight)
            found += weight * correlation(ranks(own), ranks(others))
    effective = 1.0 / float((weights**2).sum())
    return float(max(0.0, found) * (1.0 - 1.0 / max(effective, 1.0)))


def correlation(left: Array, right: Array) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    a, b = left - left.mean(), right - right.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0.0 else 0.0
