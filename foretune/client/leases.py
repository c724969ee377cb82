"""The heartbeat: one thread a client keeps the leases of all its running trials alive.

A beat is sent when a third of a lease has passed since it was last extended; a report extends it too, so a loop that
reports often sends no beats at all. A beat that finds no service is tried again soon, without waiting on it: other
trials' leases must not run out meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from datetime import datetime
from typing import Protocol

from foretune.errors import ForetuneError

_SHORTEST_BEAT_S = 0.2
_RETRY_S = 1.0
_IDLE_S = 1.0
_LONGEST_SLEEP_S = 5.0
_DEFAULT_LEASE_S = 60.0


class Leased(Protocol):
    """What the heartbeat keeps alive."""

    @property
    def beat_at(self) -> float:
        """When the next beat is due, on the monotonic clock."""

    def beat(self) -> bool:
        """Sends one beat; False when no more are needed. Raises ForetuneError when the service cannot be reached."""

    def postpone(self, delay_s: float) -> None:
        """Makes the next beat due after `delay_s`."""


class Heartbeat:
    """Thread-safe. The thread starts with the first lease and ends with the last one."""

    def __init__(self) -> None:
        # Weak: a trial that the program has forgotten must not be kept from others for ever.
        self._held: weakref.WeakSet[Leased] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._wakes_at = 0.0
        self._closing = False

    def keep(self, lease: Leased) -> None:
        """Sends beats for `lease` until `drop`."""
        if self._pid != os.getpid():
            self._begin_anew_after_fork()
        with self._changed:
            self._held.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="foretune-heartbeat", daemon=True)
                self._thread.start()
            elif lease.beat_at < self._wakes_at:
                self._changed.notify()

    def drop(self, lease: Leased) -> None:
        """No more beats for `lease`; harmless when there were none."""
        with self._changed:
            self._held.discard(lease)

    def close(self) -> None:
        """Drops every lease and ends the thread."""
        with self._changed:
            self._held.clear()
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _begin_anew_after_fork(self) -> None:
        # The thread stayed in the parent, and so do the leases: the child must not keep them alive after it.
        self._held, self._changed, self._thread = weakref.WeakSet(), threading.Condition(), None
        self._pid = os.getpid()

    def _run(self) -> None:
        while True:
            with self._changed:
                wait_s = self._until_next_beat_s()
                if wait_s is None:
                    # A loop asks for its next trial right after it completed one: let the thread live a little.
                    if not self._closing:
                        self._sleep(_IDLE_S)
                    if self._until_next_beat_s() is None:
                        self._thread, self._closing = None, False
                        return
                    continue
                if wait_s > 0:
                    self._sleep(min(wait_s, _LONGEST_SLEEP_S))
                    continue
                due = min(self._held, key=lambda lease: lease.beat_at, default=None)
            if due is not None:
                self._send(due)
                del due  # or this thread alone would keep a forgotten trial alive

    def _until_next_beat_s(self) -> float | None:
        next_beat = min((lease.beat_at for lease in self._held), default=None)
        return None if next_beat is None else next_beat - time.monotonic()

    def _sleep(self, longest_s: float) -> None:
        self._wakes_at = time.monotonic() + longest_s
        self._changed.wait(longest_s)

    def _send(self, lease: Leased) -> None:
        try:
            needs_more = lease.beat()
        except ForetuneError:
            lease.postpone(_RETRY_S)
        else:
            if not needs_more:
                self.drop(lease)


def beat_interval_s(expires_at: datetime, server_time: datetime | None, now: datetime) -> float:
    """Seconds until the next beat for a lease that was just given.

    The service's own clock counts when it told it: this machine's may be wrong by more than a lease lasts.
    """
    lasts_s = (expires_at - (server_time or now)).total_seconds()
    if lasts_s <= 0:
        lasts_s = _DEFAULT_LEASE_S if server_time is None else 3 * _SHORTEST_BEAT_S
    return max(_SHORTEST_BEAT_S, lasts_s / 3)
