"""One child of a supervisor: where it stands, what happened to it, and what is said of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from service.embedded.processes import log_tail
from service.embedded.spawning import ChildSpec, Process

STEADY_AFTER_S = 60.0  # a child that ran this long starts its count of failures anew
CRASH_LOOP_FAILURES = 4
_FIRST_BACK_OFF_S = 0.25
_LONGEST_BACK_OFF_S = 30.0


class ChildState(StrEnum):
    """Where a child stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


class ChildEventKind(StrEnum):
    """What a supervisor tells its owner."""

    READY = "ready"
    DIED = "died"
    CRASH_LOOP = "crash_loop"


@dataclass(frozen=True)
class ChildEvent:
    """Something happened to a child. `detail` is one sentence, with the last log lines for a crash loop."""

    kind: ChildEventKind
    child: str
    detail: str


@dataclass
class Child:
    """What a supervisor knows of a child. Times are those of `time.monotonic`."""

    spec: ChildSpec
    state: ChildState = ChildState.STARTING
    process: Process | None = None
    started: float = 0.0
    restart_at: float = 0.0
    failures: int = 0
    log_start_byte: int = 0
    ended_with: str = ""

    @property
    def is_looping(self) -> bool:
        """Whether it crashes again and again."""
        return self.failures >= CRASH_LOOP_FAILURES

    def count_failure(self, now: float) -> float:
        """It ended by itself: one more failure. Returns after how many seconds to start it again."""
        self.failures = 1 if now - self.started >= STEADY_AFTER_S else self.failures + 1
        return min(_FIRST_BACK_OFF_S * 2.0 ** (self.failures - 1), _LONGEST_BACK_OFF_S)

    def quoted_log(self) -> str:
        """The last lines of this run's log, each on a line of its own; "" when there are none."""
        tail = log_tail(self.spec.log, from_byte=self.log_start_byte)
        return "\n  | " + tail.replace("\n", "\n  | ") if tail else ""

    def last_words(self) -> str:
        """How it ended, how often, and its last log lines."""
        times = f" ({self.failures} times in a row)" if self.failures > 1 else ""
        ended = self.ended_with or f"{self.spec.name} was stopped"
        return f"{ended}{times}; its log is {self.spec.log}{self.quoted_log()}"


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
