"""How many calls a key may make: so that one client in a loop does not take the service from everybody else."""

from __future__ import annotations

import time
from collections.abc import Callable

from foretune.errors import TooManyRequests

_BURST_S = 2.0
"""Of what a key did not use it may make up for as much, at once."""
_MOST_KEYS = 10_000
_ROUNDING_S = 1e-6


class Rate:
    """A steady rate for each key, of this process alone: several API processes allow several times as much.

    The generic cell rate algorithm (ITU-T I.371): for each key the time at which it would have used up what it may.
    Nothing is allowed or refused by another process' word, so a dead Redis changes nothing. For one thread.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_s`: calls a second; 0 allows any number."""
        self._per_s = per_s
        self._clock = clock
        self._used_until: dict[str, float] = {}

    def take(self, key: str) -> None:
        """Counts a call. Raises TooManyRequests, which says when the next one is allowed; that call does not count."""
        if not self._per_s:
            return
        now = self._clock()
        used_until = max(self._used_until.get(key, now), now)
        wait_s = used_until + 1.0 / self._per_s - now - max(_BURST_S, 1.0 / self._per_s)
        if wait_s > _ROUNDING_S:
            raise TooManyRequests(f"a key may make {self._per_s:g} calls a second", retry_after_s=wait_s)
        if len(self._used_until) >= _MOST_KEYS:
            self._used_until = {one: until for one, until in self._used_until.items() if until > now}
        self._used_until[key] = used_until + 1.0 / self._per_s
