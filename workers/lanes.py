"""Lanes: what concerns one experiment is done in order, and experiments take turns on a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Lanes(Generic[_T]):
    """Hands items to `work`, those of one lane to one thread at a time and as many together as wait.

    A lane that has more to do goes to the back of the queue. One that takes long delays nobody else's items, as long as
    there are fewer such lanes than threads.
    """

    def __init__(self, work: Callable[[Sequence[_T]], None], threads: int, most: int, name: str) -> None:
        """`most`: items that `add` takes before it waits. `work` must not raise."""
        self._work = work
        self._most = most
        self._changed = threading.Condition()
        self._turns: SimpleQueue[str | None] = SimpleQueue()
        """The lanes whose turn it is, in order; None ends a thread."""
        self._closed = False
        self._most_threads, self._name = threads, name
        self._threads: list[threading.Thread] = []
        self._waiting: dict[str, list[_T]] = {}
        """By lane; a lane that is here has its turn, or waits for it."""
        self._held = 0

    @property
    def held(self) -> int:
        """How many items were taken and are not done."""
        return self._held

    def add(self, lane: str, items: Sequence[_T]) -> None:
        """Takes items; waits while there are too many."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._most)
            self._held += len(items)
            waiting = self._waiting.get(lane)
            if waiting is not None:
                waiting.extend(items)
                return
            self._waiting[lane] = list(items)
            # No more threads than lanes: one that worked a moment ago has its memory and its stack in the cache. And no
            # executor: its futures, which nobody waits for, cost as much as handing over.
            if len(self._threads) < min(len(self._waiting), self._most_threads):
                self._threads.append(threading.Thread(target=self._take_turns, name=self._name, daemon=True))
                self._threads[-1].start()
        self._turns.put(lane)

    def wait_until_idle(self) -> None:
        """Returns when nothing is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held)

    def close(self) -> None:
        """Finishes what has begun, drops the rest, and waits."""
        self._closed = True
        for _ in self._threads:
            self._turns.put(None)
        for thread in self._threads:
            thread.join()

    def _take_turns(self) -> None:
        while (lane := self._turns.get()) is not None:
            if not self._closed:
                self._turn(lane)

    def _turn(self, lane: str) -> None:
        with self._changed:
            items, self._waiting[lane] = self._waiting[lane], []
        try:
            self._work(items)
        finally:
            with self._changed:
                self._held -= len(items)
                self._changed.notify_all()
                again = bool(self._waiting[lane])
                if not again:
                    del self._waiting[lane]
            if again:
                self._turns.put(lane)
