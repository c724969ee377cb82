"""Whose turn it is: a worker shares its time between projects first, and then between a project's experiments.

A message says that there is work, and names an experiment for which it was sent. Were each served in the order of the
messages, a project with fifty experiments would get fifty times the time of a project with one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from foretune.errors import Unavailable
from service.bus.tasks import send
from service.usecases import shifts
from workers.process import WorkerProcess

_log = structlog.get_logger(__name__)


@dataclass
class Turns:
    """What one worker process did so far. A process that starts anew has no debts."""

    spent_s: dict[str, float] = field(default_factory=dict)
    """The time that each project with open work had."""
    served: dict[str, int] = field(default_factory=dict)
    """The number of the last turn of each experiment with open work."""
    _number: int = 0

    def choose(self, work: Mapping[str, str]) -> str | None:
        """The next experiment of `work` (experiment -> project): of the project that had the least time, the one that
        waits longest. None when there is no work.
        """
        if not work:
            return None
        present = set(work.values())
        # Who comes, or comes back, is owed nothing for the time when it had no work.
        least_s = min((self.spent_s[project] for project in present if project in self.spent_s), default=0.0)
        self.spent_s = {project: self.spent_s.get(project, least_s) for project in present}
        self.served = {experiment: self.served.get(experiment, 0) for experiment in work}
        return min(work, key=lambda experiment: (self.spent_s[work[experiment]], self.served[experiment]))

    def note(self, experiment: str, project: str, seconds: float) -> None:
        """The experiment's turn took so long."""
        self._number += 1
        self.served[experiment] = self._number
        self.spent_s[project] = self.spent_s.get(project, 0.0) + seconds


_turns = Turns()


def take_turn(process: WorkerProcess, told: str, turns: Turns = _turns) -> None:
    """A shift on the experiment whose turn it is, now that a message told of `told`; which is announced again unless it
    was served.
    """
    from workers.shift import Shift

    try:
        with process.database.transaction() as tx:
            work = shifts.open_work(tx)
    except Unavailable as error:
        # Upkeep rings again when the database is back.
        _log.warning("no_turn", error=error.message)
        return
    chosen = turns.choose(work)
    if chosen is None:
        return
    began = time.monotonic()
    try:
        Shift(process, chosen).run()
    finally:
        turns.note(chosen, work[chosen], time.monotonic() - began)
        if told != chosen and told in work:
            _announce(told)


def _announce(experiment_id: str) -> None:
    try:
        send("train.shift", experiment_id)
    except Exception as error:  # noqa: BLE001 - Redis may be away; upkeep rings again
        _log.warning("not_announced", experiment=experiment_id, error=str(error))
