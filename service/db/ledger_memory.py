"""What this process remembers of experiments as it left them, so that the next report need not read them again.

A ledger takes a lock, reads, writes and commits: three trips to Postgres. As long as nobody else has written since, the
one that writes is enough, and that nobody has it finds out by itself: it writes only if the experiment's row still has
the revision that it was left with.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from foretune.states import TrialState
from foretune.wire.experiments import Mode
from service.db import ledger_statements as sql
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger, Wake
from service.db.session import Transaction
from service.db.trials import StoredTrial

_REMEMBERED = 1000
"""Experiments."""
_MOST_TRIALS = 10_000
"""Open trials of one experiment."""
_SHARED_S = 1.0
"""An experiment that somebody else wrote to is read again for so long."""


class NotFromMemory(Exception):
    """Work wanted to know more than is remembered: it has to be done under the lock."""


@dataclass(frozen=True)
class Left:
    """An experiment and some of its open trials, as they were left."""

    experiment: StoredExperiment
    revision: str
    trials: dict[str, StoredTrial]
    clock: datetime
    """The database's, when it was left."""
    left_at: float

    def now(self) -> datetime:
        """The database's clock."""
        return self.clock + timedelta(seconds=time.monotonic() - self.left_at)


class LedgerFromMemory(Ledger):
    """A ledger without a lock. It is not a context manager: `write` says whether all of it was written, or nothing.

    Whatever needs to read raises NotFromMemory.
    """

    def __init__(self, tx: Transaction, left: Left, wake: Wake | None) -> None:
        super().__init__(tx, left.experiment, wake, left.now(), (left.revision, ""))
        self._left = left

    def trials(self, trial_ids: Sequence[str]) -> dict[str, StoredTrial]:
        """Raises NotFromMemory unless all of them are remembered."""
        try:
            return {trial_id: self.known.get(trial_id) or self._left.trials[trial_id] for trial_id in trial_ids}
        except KeyError:
            raise NotFromMemory from None

    def write(self) -> Left | None:
        """How the experiment is left; None when somebody else has written to it, and nothing was written here.

        Raises NotFromMemory when there is nothing to write: then nothing shows whether what is remembered is true.
        """
        parts, submitted, parameters = self._noted()
        if submitted or not self.notes:
            raise NotFromMemory
        written = self.tx.rows(sql.write_unchanged(parts), {**parameters, "revision": self.revision})
        if not written:
            return None
        ((clock, revision),) = written
        assert isinstance(clock, datetime)
        self._wake_readers()
        trials = self._left.trials
        _update(trials, self.known)
        return Left(self.experiment, str(revision), trials, clock, time.monotonic())

    def _write(self, run: object = None) -> None:  # noqa: ARG002 - it stands for one that writes
        raise NotFromMemory


class LedgerMemory:
    """Experiments by project and id. Only those of clients that train for themselves: a worker has fewer reports."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, str], Left] = OrderedDict()
        self._taken: OrderedDict[tuple[str, str], Left] = OrderedDict()
        self._shared_until: dict[tuple[str, str], float] = {}

    def take(self, project: str, experiment_id: str) -> Left | None:
        """Whoever takes it has it alone; `put` it back."""
        key = project, experiment_id
        if self._shared_until and time.monotonic() < self._shared_until.get(key, 0.0):
            return None
        left = self._left.pop(key, None)
        if left is not None:
            self._taken[key] = left
            _shorten(self._taken)
        return left

    def look(self, project: str, experiment_id: str) -> Left | None:
        """What was left last, whoever has it now: it may be out of date, and is not to be written from."""
        key = project, experiment_id
        return self._left.get(key) or self._taken.get(key)

    def put(self, left: Left) -> None:
        """Remembers how an experiment was left."""
        key = left.experiment.project_id, left.experiment.id
        self._taken.pop(key, None)
        if left.experiment.state.finished or len(left.trials) > _MOST_TRIALS:
            return
        self._left[key] = left
        _shorten(self._left)

    def put_ledger(self, ledger: Ledger, before: Left | None) -> None:
        """Remembers how a ledger that was committed left its experiment; what was taken `before`, if still true."""
        if ledger.experiment.mode != Mode.EXTERNAL:
            return
        before = before or self._left.pop((ledger.experiment.project_id, ledger.experiment.id), None)
        trials = before.trials if before is not None and before.revision == ledger.read_revision else {}
        _update(trials, ledger.known)
        self.put(Left(ledger.experiment, ledger.revision, trials, ledger.now, ledger.read_at))

    def note_shared(self, project: str, experiment_id: str) -> None:
        """Somebody else writes to it as well."""
        now = time.monotonic()
        if len(self._shared_until) >= _REMEMBERED:
            self._shared_until = {key: until for key, until in self._shared_until.items() if until > now}
        self._shared_until[project, experiment_id] = now + _SHARED_S


def _shorten(remembered: OrderedDict[tuple[str, str], Left]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)


def _update(trials: dict[str, StoredTrial], known: dict[str, StoredTrial]) -> None:
    """Open trials are remembered as they were left; of the others the next report asks Postgres."""
    for trial_id, trial in known.items():
        if trial.state is TrialState.RUNNING:
            trials[trial_id] = trial
        else:
            trials.pop(trial_id, None)
