"""Policies in force, and candidates that were compared with them: what a trial's best so far must reach at an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.transfer_parts.tables import Array
from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Curves, Problem, StoppingPolicy, thresholds


@dataclass(frozen=True)
class Seen:
    """`bests` (n, R): the best merit so far of each trial, nan where it did not come; `finished` (n,) reached R."""

    bests: Array
    finished: Array
    curves: Curves

    def at(self, epoch: int) -> Array:
        """Of the trials that came as far, the worst first."""
        column = self.bests[:, epoch - 1]
        return np.sort(column[~np.isnan(column)])


Policy: TypeAlias = Callable[[Seen, int, int], float | None]
"""What was seen, the epoch, and R -> the merit that a trial needs there; None: whatever it has."""


def _in_force(policy: StoppingPolicy) -> Policy:
    def threshold(seen: Seen, epoch: int, max_epochs: int) -> float | None:
        problem = Problem(_SPACE, Goal.MAXIMIZE, max_epochs, 1, 0)
        return thresholds(problem, seen.curves, policy, [epoch]).get(epoch)

    return threshold


def _share(begin: float, others: int, share: Callable[[float], float]) -> Policy:
    """A share of the trials falls behind, from a part of the budget on."""

    def threshold(seen: Seen, epoch: int, max_epochs: int) -> float | None:
        progress, reached = epoch / max_epochs, seen.at(epoch)
        if progress < begin or len(reached) < others:
            return None
        return float(reached[math.ceil(share(progress) * len(reached)) - 1])

    return threshold


def _asha(reduction: int) -> Policy:
    def threshold(seen: Seen, epoch: int, max_epochs: int) -> float | None:
        reached = seen.at(epoch)
        kept = (len(reached) + 1) // reduction
        rungs = {max(1, round(max_epochs / reduction**k)) for k in (1, 2, 3)}
        return float(reached[-kept]) if kept and epoch in rungs else None

    return threshold


def _gains(quantile: float) -> Policy:
    """Extrapolates: a trial must be able to reach the best if it gains what so many finished ones gained from here."""

    def threshold(seen: Seen, epoch: int, _: int) -> float | None:
        finished = seen.bests[seen.finished]
        gains = finished[:, -1] - finished[:, epoch - 1] if len(finished) else np.zeros(0)
        gains = gains[np.isfinite(gains)]
        if len(gains) < _FEWEST_FINISHED:
            return None
        return float(np.nanmax(seen.bests) - np.quantile(gains, quantile))

    return threshold


def _leaders(count: int) -> Policy:
    """The nearest known curves: no worse than the worst of the best finished trials was at this epoch."""

    def threshold(seen: Seen, epoch: int, _: int) -> float | None:
        finished = seen.bests[seen.finished]
        if len(finished) < _FEWEST_FINISHED:
            return None
        leading = finished[np.argsort(-finished[:, -1], kind="stable")[:count]]
        return float(leading[:, epoch - 1].min())

    return threshold


def _growing(begin: float, least: float, until: float, most: float) -> Policy:
    return _share(begin, 5, lambda progress: least + (most - least) * min(1.0, (progress - begin) / (until - begin)))


def _not_first(policy: Policy) -> Policy:
    return lambda seen, epoch, max_epochs: policy(seen, epoch, max_epochs) if epoch > 1 else None


_SPACE = Space.of(Float("x", 0.0, 1.0))
_FEWEST_FINISHED = 5
POLICIES: dict[str, Policy] = {
    **{policy.value: _in_force(policy) for policy in StoppingPolicy},
    "asha, eta 4": _asha(4),
    "worst fifth from 1/3 on": _share(1 / 3, 10, lambda _: 0.2),
    "worst half from 1/3 on": _share(1 / 3, 5, lambda _: 0.5),
    "worst six of ten from 1/10 on": _share(1 / 10, 5, lambda _: 0.6),
    "share .2 to .6": _growing(0.1, 0.2, 0.5, 0.6),
    "share .3 to .7": _growing(0.1, 0.3, 0.5, 0.7),
    "as auto, never the first epoch": _not_first(_in_force(StoppingPolicy.AUTO)),
    "share .4 to .8": _growing(0.1, 0.4, 0.5, 0.8),
    "largest gain of the finished": _gains(1.0),
    "gain of nine in ten": _gains(0.9),
    "as the best three": _leaders(3),
    "as the best five": _leaders(5),
}
