"""How far histories are to be trusted on this task: by how well they ranked its trials before these had run.

The common opinion m of the histories knows nothing of the task, so all of the task's results judge it. With r the
correlation of m with the ranks of the losses, the gate is clip((r̄ - .1) / .4, 0, 1), where r̄ is r shrunk towards the
agreement of the histories among each other by the weight of a few results: that is what r should be, if the task is to
them as they are to each other. Where even the best of what they promised stands worse than it should among all that
was ever measured (`metalearner.levels`), r̄ is shrunk towards 0 instead, and by twice as much.

m itself and not its rank, and n results count as n s / (s² + b²)^½ with s the deviation of their opinions: the first
trials are all thought good, and the order among them says little beside a result that was thought bad.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata

from metalearner.arrays import Array
from metalearner.knowledge import Knowledge, correlation
from metalearner.memory import History

_SHRINK = 3.0
"""As many results weigh as much as the histories' own agreement; twice as many as a promise that was broken."""
_BLUR = 0.5
"""Opinions that differ by less hardly differ: results that were all thought good say little by their order."""
_LOWEST, _WIDTH = 0.1, 0.4
_PROMISED = -0.7
"""A setting of which the common opinion is no worse is thought to be good."""
_AT_ONCE = 16
"""Nearly always one of the first results was promised: the opinions on a long history are not needed."""


def gate(knowledge: Knowledge, history: History, count: int | None = None) -> float:
    """From 0, shut, to 1, open, after the first `count` results (all of them without it)."""
    seen = len(history) if count is None else count
    opinions = knowledge.opinions(history.features[:seen])[:, 0]
    return opened(knowledge, opinions, history.losses[:seen])


def broken(knowledge: Knowledge, history: History) -> bool:
    """Whether the first result that the histories promised to be good came out clearly worse than it should.

    The first one alone: of wrong histories' many later promises some are kept by chance.
    """
    if knowledge.levels is None:
        return False
    for start in range(0, len(history), _AT_ONCE):
        opinions = knowledge.opinions(history.features[start : start + _AT_ONCE])[:, 0]
        promised = start + np.flatnonzero(opinions <= _PROMISED)
        if len(promised):
            return knowledge.levels.kept(history.losses[promised[:1]]) == 0.0
    return False


def opened(knowledge: Knowledge, expected: Array, losses: Array) -> float:
    """The gate for losses (n,), infinite where diverged, of which `expected` (n,) was thought."""
    if len(losses) == 0:
        return 1.0
    kept = _kept(knowledge, expected, losses)
    believed = kept * max(knowledge.agreement, _LOWEST + _WIDTH)
    shrink = _SHRINK * (2.0 - kept)
    spread = float(expected.std())
    told = len(losses) * spread / math.hypot(spread, _BLUR)
    shrunk = (told * correlation(expected, rankdata(losses)) + shrink * believed) / (told + shrink)
    return float(np.clip((shrunk - _LOWEST) / _WIDTH, 0.0, 1.0))


def _kept(knowledge: Knowledge, expected: Array, losses: Array) -> float:
    """How far the best of the results that were promised to be good stands where promises should: 1 or less."""
    promised = losses[expected <= _PROMISED]
    if knowledge.levels is None or len(promised) == 0:
        return 1.0
    return knowledge.levels.kept(promised)
