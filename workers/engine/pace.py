"""How many members a population should have: measured, by real steps, once a process for each signature and device.

Stacking saves the cost of calls until the members' numbers no longer fit the cache. Populations therefore begin small;
when there are more members than fit one, the next size is tried for some twenty steps, and kept if a member's step
became faster. A member's bits do not depend on the size, so the measurement changes nothing but the time.
"""

from __future__ import annotations

import logging
import statistics
from collections import deque
from dataclasses import dataclass, field

import torch

from workers.engine.signature import Signature

STEPS = 20
"""Steps of one size that are compared with as many of another."""
_SIZES_CPU = (4, 16, 64)
_SIZES_ACCELERATOR = (64, 256)
_WORTH_GROWING = 0.97
_log = logging.getLogger(__name__)


class Pace:
    """The time of a member's step in a population as it is now: the median of its last steps."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=STEPS)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def forget(self) -> None:
        """The population has another size now."""
        self._seconds.clear()

    @property
    def seconds(self) -> float | None:
        """None until there were enough steps."""
        return statistics.median(self._seconds) if len(self._seconds) == STEPS else None


@dataclass
class SizeSearch:
    """The sizes tried for one signature. `size` is the largest population allowed at present."""

    sizes: tuple[int, ...]
    settled: bool = False
    _at: int = 0
    _paces: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.sizes[self._at]

    def note(self, members: int, seconds: float | None, *, more: bool) -> bool:
        """Takes in the pace of a population; True when `size` has changed.

        `more` says that there are members beyond this population, so that a larger one could be filled.
        """
        full = members > self.sizes[self._at - 1] if self._at else members == self.size
        if self.settled or seconds is None or not full:
            return False
        if len(self._paces) == self._at:
            self._paces.append(seconds)
            if self._at and seconds > _WORTH_GROWING * self._paces[self._at - 1]:
                self._at -= 1
                self.settled = True
                return True
        if self._at == len(self.sizes) - 1:
            self.settled = True
        elif more:
            self._at += 1
            return True
        return False

    def halve(self, members: int) -> None:
        """That many members did not fit the device."""
        self.sizes, self._at, self.settled = (max(1, min(self.size, members) // 2),), 0, True


_SEARCHES: dict[tuple[Signature, str], SizeSearch] = {}


def size_search(signature: Signature, device: torch.device) -> SizeSearch:
    """The search of this process for a signature on a kind of device."""
    sizes = _SIZES_CPU if device.type == "cpu" else _SIZES_ACCELERATOR
    return _SEARCHES.setdefault((signature, device.type), SizeSearch(sizes))
