"""Proposals from a Gaussian process whose prior was learned from histories.

    y(x) = a m(x) + Σ_k z_k φ_k(x) + δ(x) + c,   a = g max(â, 0),   z_k ~ N(0, a²),   δ: Matérn-5/2
m and φ_k: `metalearner.knowledge`; g: the gate; â: how much of this task's scores the common opinion explains, by ridge
regression towards 1. δ is fitted to what is left, as the cold process is to the scores themselves. Where the gate is
shut it is not asked.

Symbols: n observations, K directions, P feature columns, m candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtrs

from foretune.metrics import Goal
from metalearner import gp
from metalearner.acquisition import log_expected_improvement
from metalearner.arrays import Array
from metalearner.cold_gp import GPSettings, chosen, milestone
from metalearner.gate import opened
from metalearner.knowledge import Knowledge
from metalearner.memory import History, Memory
from metalearner.outcomes import prediction
from metalearner.search import search
from metalearner.values import Evidence, Prediction

_RIDGE = 4.0
"""The belief that the opinion's scale is right weighs as much as so many results."""
_NOISE = 0.3
_INCUMBENTS = 5
_KNOWN_GOOD = 5
_PREFERRED = math.log(10.0)
"""A setting that was tried elsewhere is taken, unless a new one promises ten times its improvement."""


@dataclass(frozen=True)
class _Prior:
    """What is believed before the own results count: factor of m, deviation of each z, the process of δ."""

    level: float
    slope: float
    deviation: float
    kernel: gp.Kernel


@dataclass(frozen=True)
class Surrogate:
    """The process given n results, fantasies included."""

    knowledge: Knowledge
    prior: _Prior
    points: Array  # (n, P), scaled
    directions: Array  # (n, K)
    factor: Array  # (n, n)
    weights: Array  # (n,)

    def predict(self, features: Array, opinions: Array) -> tuple[Array, Array]:
        """Mean and variance of the noiseless score: (m, P), (m, 1 + K) -> (m,), (m,)."""
        kernel, prior = self.prior.kernel, self.prior
        scaled = kernel.scaled(features, self.knowledge.groups)
        toward = prior.deviation**2 * opinions[:, 1:]
        cross = kernel.between(scaled, self.points) + toward @ self.directions.T
        solved, _ = dtrtrs(self.factor, cross.T, lower=1)
        own = kernel.scale + kernel.mean_variance + (toward * opinions[:, 1:]).sum(1)
        variance = np.maximum(own - np.einsum("ij,ij->j", solved, solved), 1e-12)
        return _mean(prior, opinions) + cross @ self.weights, variance


@dataclass(frozen=True)
class Suggestion:
    """A row to try, what is expected of it and which histories speak for it; no row where nothing is new."""

    row: Array | None
    predicted: Prediction | None
    evidence: tuple[Evidence, ...]


def suggest(
    knowledge: Knowledge,
    history: History,
    memory: Memory,
    pending: Sequence[Array],
    goal: Goal,
    settings: GPSettings,
    generator: np.random.Generator,
) -> Suggestion:
    """The row with the highest expected improvement, given that `pending` rows turn out as expected."""
    seen = len(history)
    fitted_on = milestone(seen, settings.growth)
    kernel = memory.recall(
        ("transfer", knowledge.digest, fitted_on, settings), lambda: _kernel(knowledge, history, fitted_on, settings)
    )
    places, scale, scores = chosen(history, seen, settings.points)
    features = history.features[places]
    opinions = knowledge.opinions(features)
    prior = _prior(opinions, scores, opened(knowledge, features, opinions[:, 0], history.losses[places]), kernel)
    model = _conditioned(knowledge, prior, features, opinions, scores)
    expected, _ = model.predict(features, opinions)
    order = np.argsort(expected, kind="stable")
    best = float(expected[order[0]])
    before = model
    if pending:
        waiting = history.encoding.features(np.array(pending))
        thought = knowledge.opinions(waiting)
        fantasies, _ = model.predict(waiting, thought)
        model = _conditioned(
            knowledge,
            prior,
            np.concatenate([features, waiting]),
            np.concatenate([opinions, thought]),
            np.concatenate([scores, fantasies]),
        )

    def acquisition(rows: Array) -> Array:
        columns = history.encoding.features(rows)
        return log_expected_improvement(*model.predict(columns, knowledge.opinions(columns)), best)

    good = knowledge.rows[np.argsort(-acquisition(knowledge.rows), kind="stable")]
    incumbents = np.concatenate([history.rows[places[order[:_INCUMBENTS]]], good[:_KNOWN_GOOD]])
    rows, values = search(acquisition, history.encoding, incumbents, generator, settings.plan)
    rows, values = np.concatenate([good, rows]), np.concatenate([acquisition(good) + _PREFERRED, values])
    for place in np.argsort(-values, kind="stable"):
        row = rows[place]
        if not history.has(row, pending):
            columns = history.encoding.features(row[None, :])
            thought = knowledge.opinions(columns)
            mean, variance = before.predict(columns, thought)
            predicted = prediction(scale, goal, float(mean[0]), float(variance[0]) + kernel.noise)
            return Suggestion(row, predicted, knowledge.evidence(thought[0]))
    return Suggestion(None, None, ())


def _kernel(knowledge: Knowledge, history: History, count: int, settings: GPSettings) -> gp.Kernel:
    """The process of δ as the first `count` results have it."""
    places, _, scores = chosen(history, count, settings.points)
    features = history.features[places]
    opinions = knowledge.opinions(features)
    unfitted = gp.Kernel(np.ones(history.encoding.width), 0.0, _NOISE, settings.prior.mean_variance)
    prior = _prior(opinions, scores, opened(knowledge, features, opinions[:, 0], history.losses[places]), unfitted)
    left = scores - _mean(prior, opinions)
    # What the directions explain of it, by ridge regression in its dual form.
    inner = prior.deviation**2 * opinions[:, 1:] @ opinions[:, 1:].T
    left = left - inner @ np.linalg.solve(inner + _NOISE * np.eye(len(left)), left)
    return gp.fit(features, left, knowledge.groups, settings.prior, settings.iterations)


def _prior(opinions: Array, scores: Array, gate: float, kernel: gp.Kernel) -> _Prior:
    centered, own = opinions[:, 0] - opinions[:, 0].mean(), scores - scores.mean()
    slope = (centered @ own + _RIDGE) / (centered @ centered + _RIDGE)
    slope = gate * max(float(slope), 0.0)
    return _Prior(float(scores.mean() - slope * opinions[:, 0].mean()), slope, slope, kernel)


def _mean(prior: _Prior, opinions: Array) -> Array:
    return np.asarray(prior.level + prior.slope * opinions[:, 0])


def _conditioned(knowledge: Knowledge, prior: _Prior, features: Array, opinions: Array, scores: Array) -> Surrogate:
    kernel = prior.kernel
    points = kernel.scaled(features, knowledge.groups)
    directions = opinions[:, 1:]
    covariance = kernel.between(points, points) + prior.deviation**2 * directions @ directions.T
    covariance[np.diag_indices_from(covariance)] += kernel.noise + 1e-5 * (1.0 + np.diagonal(covariance))
    factor, failed = dpotrf(covariance, lower=1)
    assert not failed, "a kernel with this much on its diagonal is positive definite"
    half, _ = dtrtrs(factor, scores - _mean(prior, opinions), lower=1)
    weights, _ = dtrtrs(factor, half, lower=1, trans=1)
    return Surrogate(knowledge, prior, points, directions, factor, weights)
