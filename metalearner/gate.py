"""How far histories are to be trusted on this task: by how well they ranked its trials before these had run.

The common opinion m of the histories knows nothing of the task, so all of the task's results judge it. With r the
correlation of m with the ranks of the losses, the gate is clip((r̄ - .1) / .4, 0, 1), where r̄ is r shrunk towards the
agreement of the histories among each other by the weight of a few results: that is what r should be, if the task is to
them as they are to each other. m itself and not its rank: the first trials are all thought good, and the order among
them says little beside a result that was thought bad.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from metalearner.arrays import Array
from metalearner.knowledge import Knowledge, correlation
from metalearner.memory import History

_SHRINK = 3.0
"""As many results weigh as much as the histories' own agreement."""
_LOWEST, _WIDTH = 0.1, 0.4


def gate(knowledge: Knowledge, history: History, count: int | None = None) -> float:
    """From 0, shut, to 1, open, after the first `count` results (all of them without it)."""
    seen = len(history) if count is None else count
    opinions = knowledge.opinions(history.features[:seen])[:, 0]
    return opened(opinions, history.losses[:seen], knowledge.agreement)


def opened(expected: Array, losses: Array, agreement: float) -> float:
    """The gate for losses (n,), infinite where diverged, of which `expected` (n,) was thought."""
    count = len(losses)
    expectation = max(agreement, _LOWEST + _WIDTH)
    found = count * correlation(expected, rankdata(losses)) if count > 1 else 0.0
    shrunk = (found + _SHRINK * expectation) / (count + _SHRINK) if count > 1 else expectation
    return float(np.clip((shrunk - _LOWEST) / _WIDTH, 0.0, 1.0))
