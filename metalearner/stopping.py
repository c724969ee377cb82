"""Whether a running trial goes on: asynchronous successive halving, median stopping, and halving at every epoch.

Every policy compares a trial's best value so far with the other trials at the same epoch, so its verdict is a number:
the threshold that the best so far must reach. Whoever takes a measurement can compare without knowing the policy, in
any order and as often as it likes.

AUTO stops the worse half of those that came as far, at every epoch from a tenth of the budget on, so that more and more
is asked of whoever is left. Chosen in `benchmarks.stopping`; docs/adr/0006 says against what, and why it needs no look
at the learning-rate schedule.

Symbols: R the longest a trial may run (`max_epochs`), η = 3 the reduction factor, n trials that reached an epoch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from metalearner.curves import Curves
from metalearner.values import Problem, StoppingPolicy

_REDUCTION = 3
_RUNGS = 3
"""ASHA's rungs lie at R/27, R/9 and R/3."""
_MEDIAN_OTHERS = 5
"""The median of fewer curves says little."""
_AUTO_PARTS = 10
"""In the first of so many parts of the budget AUTO stops nobody: warm-up and noise rule there."""
_AUTO_OTHERS = 5


def thresholds(problem: Problem, curves: Curves, policy: StoppingPolicy, epochs: Iterable[int]) -> dict[int, float]:
    """For each of `epochs`, the worst best-so-far with which a trial goes on; absent where every trial does.

    `curves` are those of all trials, running, stopped or finished. The last epoch never stops a trial: it is finished
    then.
    """
    found = {}
    for epoch in epochs:
        if not 0 < epoch < problem.max_epochs:
            continue
        threshold = _threshold(curves, policy, epoch, problem.max_epochs)
        if threshold is not None and math.isfinite(threshold):
            found[epoch] = problem.goal.sign * threshold
    return found


def asha_rungs(max_epochs: int) -> list[int]:
    """The epochs at which ASHA compares, ascending; at least 1 and less than `max_epochs`."""
    epochs = {max(1, round(max_epochs / _REDUCTION**k)) for k in range(1, _RUNGS + 1)}
    return sorted(epoch for epoch in epochs if epoch < max_epochs)


def _threshold(curves: Curves, policy: StoppingPolicy, epoch: int, max_epochs: int) -> float | None:
    """The merit (larger is better) that a trial's best so far needs at this epoch."""
    best = curves.bests(epoch)  # n, the worst first
    match policy:
        case StoppingPolicy.ASHA:
            # Li et al. 2020 (arXiv 1810.05934), the stopping form: go on if among the best third at the rung.
            kept = (len(best) + 1) // _REDUCTION if epoch in asha_rungs(max_epochs) else 0
            return best[-kept] if kept else None
        case StoppingPolicy.MEDIAN:
            # Golovin et al. 2017 (Google Vizier, section 3.2.2): the best so far against the median running mean.
            return statistics.median(curves.means(epoch)) if len(best) >= _MEDIAN_OTHERS else None
        case StoppingPolicy.AUTO:
            if epoch * _AUTO_PARTS < max_epochs or len(best) < _AUTO_OTHERS:
                return None
            return best[(len(best) - 1) // 2]
        case StoppingPolicy.NONE:
            return None
