"""How far histories are to be trusted on this task: by how well they ranked its trials before these had run.

The common opinion m of the histories knows nothing of the task, so all of the task's results judge it. With r the
correlation of m with the ranks of the losses, the gate is clip((r̄ - .1) / .4, 0, 1), where r̄ is r shrunk towards the
agreement of the histories among each other by the weight of a few results: that is what r should be, if the task is to
them as they are to each other. Where even the best of what they promised stands worse than it should among all
that was ever measured (`metalearner.levels`), r̄ is shrunk towards 0 instead, and by twice as much.

m itself and not its rank, and n results count as (n - 1) s / (s² + b²)^½ with s the deviation of their opinions: the
first trials are all thought good, and the order among them says little beside a result that was thought bad. Results
near each other count together as one: n is the number of neighbourhoods, Σ_i 1 / Σ_j exp(-d_ij² / near²).

A task that is harder than all before makes all settings stand low. So the first promise is judged by the task's own
results, too: by the share of settings that are better than it. Its share among all that was ever measured weighs as
much as one result, and each control, a result that was not promised and thought clearly less of, is one more: the
mean of a beta distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from metalearner.arrays import Array, Index
from metalearner.knowledge import Knowledge
from metalearner.levels import standing
from metalearner.memory import History

_SHRINK = 3.0
"""As many results weigh as much as the histories' own agreement; twice as many as a promise that was broken."""
_BLUR = 0.5
"""Opinions that differ by less hardly differ: results that were all thought good say little by their order."""
_LOWEST, _WIDTH = 0.1, 0.4
_PROMISED = -0.7
"""A setting of which the common opinion is no worse is thought to be good."""
_LESS = 0.7
"""By so much worse is clearly less."""
_CONTROLS = 4
"""So many are looked at, the first ones: later ones were chosen by results."""
_UNKNOWN, _UNKNOWN_FAIR = 0.5, 0.6
"""Where a promised result stands, and where it should, if no level says it."""
_MARGIN = 0.1
_NEAR = 0.15
"""In root mean square over the columns of the cube."""
_JUDGING = 256
"""So many of the first results judge; by then there is nothing left to learn about histories."""


@dataclass(frozen=True)
class Verdict:
    """`gate`: from 0, shut, to 1, open. `beyond`: by its level, the first result that was promised to be good came out
    clearly worse than it should. `broken`: so it did, by controls as well as by its level.

    The first one alone: of wrong histories' many later promises some are kept by chance.
    """

    gate: float
    beyond: bool
    broken: bool


def verdict(knowledge: Knowledge, history: History) -> Verdict:
    """What the results say of the histories."""
    features, losses = history.features[:_JUDGING], history.losses[:_JUDGING]
    expected = knowledge.opinions(features)[:, 0]
    promised = np.flatnonzero(expected <= _PROMISED)
    beyond = broken = False
    if len(promised):
        first = losses[promised[0]]
        beyond = _kept(knowledge, first, np.empty(0)) == 0.0
        broken = _kept(knowledge, first, losses[_controls(expected)]) == 0.0
    return Verdict(opened(knowledge, features, expected, losses), beyond, broken)


def gate(knowledge: Knowledge, history: History) -> float:
    """From 0, shut, to 1, open."""
    return verdict(knowledge, history).gate


def tested(knowledge: Knowledge, features: Array) -> bool:
    """Whether settings (n, P), the first of which was promised, hold one that can tell what the promise is worth."""
    return len(_controls(knowledge.opinions(features)[:, 0])) > 0


def opened(knowledge: Knowledge, features: Array, expected: Array, losses: Array) -> float:
    """The gate for losses (n,), infinite where diverged, of settings (n, P) of which `expected` (n,) was thought."""
    if len(losses) == 0:
        return 1.0
    promised = losses[expected <= _PROMISED]
    kept = _kept(knowledge, promised.min(), np.empty(0)) if len(promised) else 1.0
    believed = kept * max(knowledge.agreement, _LOWEST + _WIDTH)
    shrink = _SHRINK * (2.0 - kept)
    shares = _shares(features)
    count = float(shares.sum())
    found, spread = _correlation(expected, _ranks(losses, shares), shares / count)
    told = (count - 1.0) * spread / math.hypot(spread, _BLUR)
    shrunk = (told * found + shrink * believed) / (told + shrink)
    return float(np.clip((shrunk - _LOWEST) / _WIDTH, 0.0, 1.0))


def _kept(knowledge: Knowledge, promised: float, controls: Array) -> float:
    """How far a result that was promised to be good stands where promises should: from 0 to 1."""
    fair, stands, levels = _UNKNOWN_FAIR, _UNKNOWN, knowledge.levels
    if levels is not None:
        fair, stands = levels.fair, float(levels.standing(np.array([promised]))[0])
    if len(controls):
        better = len(controls) * float(standing(np.sort(controls), np.array([promised]))[0])
        stands = (stands + better) / (1.0 + len(controls))
    return float(np.clip((fair + _MARGIN - stands) / _MARGIN, 0.0, 1.0))


def _controls(expected: Array) -> Index:
    """The first results that were not promised, and of which clearly less was thought than of the first that was."""
    promised = expected[expected <= _PROMISED]
    least = max(_PROMISED, promised[0] + _LESS) if len(promised) else np.inf
    return np.flatnonzero((expected > _PROMISED) & (expected >= least))[:_CONTROLS]


def _shares(features: Array) -> Array:
    """How much of a neighbourhood each setting is: (n, P) -> (n,)."""
    squares = (features**2).sum(1)
    away = np.maximum(squares[:, None] + squares[None, :] - 2.0 * features @ features.T, 0.0) / features.shape[1]
    return np.asarray(1.0 / np.exp(-away / _NEAR**2).sum(1))


def _ranks(losses: Array, shares: Array) -> Array:
    """How much of all is less, ties by half: (n,), (n,) -> (n,)."""
    below, up_to = losses[None, :] < losses[:, None], losses[None, :] <= losses[:, None]
    return np.asarray(0.5 * (below @ shares + up_to @ shares))


def _correlation(left: Array, right: Array, shares: Array) -> tuple[float, float]:
    """Pearson's, weighted; 0 where one side is constant. And the deviation of `left`."""
    a, b = left - shares @ left, right - shares @ right
    size = math.sqrt(float(shares @ a**2) * float(shares @ b**2))
    return (float(shares @ (a * b)) / size if size > 0.0 else 0.0), math.sqrt(float(shares @ a**2))
