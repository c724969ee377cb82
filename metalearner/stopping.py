"""Whether a running trial goes on: asynchronous successive halving, median stopping, and a conservative default.

Every policy compares a trial's best value so far with the other trials at the same epoch, so its verdict is a number:
the threshold that the best so far must reach. Whoever takes a measurement can compare without knowing the policy, in
any order and as often as it likes.

Symbols: R the longest a trial may run (`max_epochs`), η = 3 the reduction factor, n trials that reached an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from metalearner.arrays import Array
from metalearner.values import Problem, StoppingPolicy

Curve: TypeAlias = Sequence[float]

_REDUCTION = 3
_RUNGS = 3
"""ASHA's rungs lie at R/27, R/9 and R/3."""
_MEDIAN_OTHERS = 5
"""The median of fewer curves says little."""
_AUTO_FROM = 1 / 3
"""The share of the budget before which AUTO never stops a trial: schedules that decay late look bad early."""
_AUTO_OTHERS = 10
_AUTO_SHARE = 0.2
"""AUTO stops only what is among the worst fifth of the trials that came as far."""


def thresholds(
    problem: Problem, curves: Sequence[Curve], policy: StoppingPolicy, epochs: Sequence[int]
) -> dict[int, float]:
    """For each of `epochs`, the worst best-so-far with which a trial goes on; absent where every trial does.

    `curves` are those of all trials, running, stopped or finished, one value an epoch from the first. The last epoch
    never stops a trial: it is finished then.
    """
    if policy is StoppingPolicy.NONE or not curves:
        return {}
    found = {}
    rungs = asha_rungs(problem.max_epochs)
    for epoch in epochs:
        if not 0 < epoch < problem.max_epochs or (policy is StoppingPolicy.ASHA and epoch not in rungs):
            continue
        reached = np.array([curve[:epoch] for curve in curves if len(curve) >= epoch], dtype=np.float64)
        if not len(reached):
            continue
        merits = _merits(problem, reached)
        threshold = _threshold(merits, policy, epoch / problem.max_epochs)
        if threshold is not None and math.isfinite(threshold):
            found[epoch] = problem.goal.sign * threshold
    return found


def asha_rungs(max_epochs: int) -> list[int]:
    """The epochs at which ASHA compares, ascending; at least 1 and less than `max_epochs`."""
    epochs = {max(1, round(max_epochs / _REDUCTION**k)) for k in range(1, _RUNGS + 1)}
    return sorted(epoch for epoch in epochs if epoch < max_epochs)


def _threshold(merits: Array, policy: StoppingPolicy, progress: float) -> float | None:
    """`merits`: (n, e), larger is better, of the trials that reached epoch e; `progress` is e / R."""
    best = np.sort(merits.max(1))  # (n,), the worst first
    match policy:
        case StoppingPolicy.ASHA:
            # Li et al. 2020 (arXiv 1810.05934), the stopping form: go on if among the best third at the rung.
            kept = (len(best) + 1) // _REDUCTION
            return float(best[-kept]) if kept else None
        case StoppingPolicy.MEDIAN:
            # Golovin et al. 2017 (Google Vizier, section 3.2.2): the best so far against the median running mean.
            return float(np.median(merits.mean(1))) if len(best) >= _MEDIAN_OTHERS else None
        case StoppingPolicy.AUTO:
            if progress < _AUTO_FROM or len(best) < _AUTO_OTHERS:
                return None
            return float(best[math.ceil(_AUTO_SHARE * len(best)) - 1])
        case StoppingPolicy.NONE:
            return None


def _merits(problem: Problem, values: Array) -> Array:
    """Values turned so that larger is better; what is no number is worst."""
    return np.where(np.isfinite(values), problem.goal.sign * values, -np.inf)
