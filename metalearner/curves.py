"""What trials measured, kept so that a trial can be compared with the others at its epoch in no time.

For each epoch the merits of all trials that came as far lie in order: a comparison looks up a place, and a measurement
costs a binary search, however many trials there are. A merit is a value turned so that larger is better.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from foretune.metrics import Goal


@dataclass
class _Trial:
    """How far one curve is known without a gap."""

    bests: list[float] = field(default_factory=list)
    """The best merit up to each epoch."""
    total: float = 0.0
    beyond: dict[int, float] = field(default_factory=dict)
    """Merits of epochs after a gap."""

    @property
    def epochs(self) -> int:
        return len(self.bests)


class Curves:
    """The curves of one experiment, told point by point, in any order within a trial."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._trials: defaultdict[str, _Trial] = defaultdict(_Trial)
        self._bests: defaultdict[int, list[float]] = defaultdict(list)
        self._means: defaultdict[int, list[float]] = defaultdict(list)

    @property
    def last_epoch(self) -> int:
        """The furthest that a trial came; 0 before the first measurement."""
        return max(self._bests, default=0)

    def add(self, trial: str, epoch: int, value: float | None) -> None:
        """A measurement; epochs count from 1. What was told before is ignored; None is a gap that remains one.

        A value that is no number is the worst there is.
        """
        known = self._trials[trial]
        if value is None or epoch <= known.epochs:
            return
        known.beyond[epoch] = self._goal.sign * value if math.isfinite(value) else -math.inf
        while known.epochs + 1 in known.beyond:
            merit = known.beyond.pop(known.epochs + 1)
            known.bests.append(max(known.bests[-1], merit) if known.bests else merit)
            known.total += merit
            insort(self._bests[known.epochs], known.bests[-1])
            insort(self._means[known.epochs], known.total / known.epochs)

    def curve(self, trial: str) -> tuple[float, ...]:
        """The trial's best value up to each epoch, as far as it is known without a gap."""
        return tuple(self._goal.sign * merit for merit in self._trials[trial].bests) if trial in self._trials else ()

    def bests(self, epoch: int) -> Sequence[float]:
        """The best merit up to `epoch` of each trial that came as far, the worst trial first."""
        return self._bests.get(epoch, ())

    def means(self, epoch: int) -> Sequence[float]:
        """The mean merit up to `epoch` of each trial that came as far, the worst trial first."""
        return self._means.get(epoch, ())
