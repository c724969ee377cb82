"""One experiment, locked for the length of a transaction: everything that changes it goes through here.

The row lock is the experiment's mutex. Under it event numbers are given out without gaps, counters and the event log
move together with the trials, and a budget cannot be overdrawn. Lock order: the experiment, then its trials.

What is noted is written by one statement, when the block ends or before the next read: this is the hottest path of
the service, and a statement costs more than what it writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TypeVar

import orjson

from foretune.errors import NotFound
from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.states import ExperimentState, TrialState, check_experiment_move, check_trial_move
from service.db import experiments as experiment_rows
from service.db import ledger_statements as sql
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.session import Statement, Transaction
from service.db.trials import StoredTrial

_Stored = TypeVar("_Stored", StoredTrial, StoredExperiment)
Wake = Callable[[str], None]
"""Wakes whoever streams the events of this experiment; `Bus.publish`, where there is a bus."""
_UNKNOWN = ("", "")


class Ledger:
    """Use as a context manager; what was noted is written when the block ends well.

    `experiment` is the experiment as it will be written: every change shows at once.
    """

    def __init__(
        self,
        tx: Transaction,
        experiment: StoredExperiment,
        wake: Wake | None,
        now: datetime,
        revisions: tuple[str, str] = _UNKNOWN,
    ) -> None:
        self.tx = tx
        self.experiment = experiment
        self.now = now
        """The database's clock: the only one that leases and budgets are judged by."""
        self.read_revision, self._own_revision = revisions
        self.revision = self.read_revision
        """Of the experiment's row, as this ledger leaves it."""
        self.read_at = time.monotonic()
        self._wake = wake
        self._written = experiment
        self._events: list[dict[str, object]] = []
        self._made: dict[str, StoredTrial] = {}
        self._changed: dict[str, StoredTrial] = {}
        self._measured: list[dict[str, object]] = []
        self._answered: list[dict[str, object]] = []
        self.known: dict[str, StoredTrial] = {}
        """By id, the trials that were read with the experiment, changed or made: each as it will be written."""
        self.notes = 0
        """How much was noted so far: as long as it stays the same, nothing was."""

    @classmethod
    def of_experiment(
        cls, tx: Transaction, experiment_id: str, *, project: str | None, wake: Wake | None, reads: Sequence[str] = ()
    ) -> Ledger:
        """Locks the experiment, and reads those of the trials `reads` that belong to it. `project` None: a worker asks.

        Raises NotFound.
        """
        lock = sql.LOCK if project is None else sql.LOCK_IN_PROJECT
        parameters: dict[str, object] = {"id": experiment_id, "project": project, "trials": list(reads)}
        trials: list[tuple[object, ...]] = []
        if reads:
            # Each statement sees what was committed when it began: the second one after the lock.
            found, trials = tx.rows_of(Statement(lock, parameters), Statement(sql.TRIALS, parameters))
        else:
            found = tx.rows(lock, parameters)
        if not found:
            raise NotFound(f"there is no experiment {experiment_id!r}")
        now, revisions, columns = _split(found[0])
        ledger = cls(tx, experiment_rows.from_values(columns), wake, now, revisions)
        ledger.known = {trial.id: trial for trial in map(trial_rows.from_values, trials)}
        return ledger

    @classmethod
    def of_trial(cls, tx: Transaction, trial_id: str, *, project: str | None, wake: Wake | None) -> Ledger:
        """Locks the experiment that the trial belongs to, and the trial. Raises NotFound."""
        statement = sql.LOCK_TRIAL if project is None else sql.LOCK_TRIAL_IN_PROJECT
        found = tx.rows(statement, {"id": trial_id, "project": project})
        if not found:
            raise NotFound(f"there is no trial {trial_id!r}")
        now, revisions, columns = _split(found[0])
        split = len(experiment_rows.COLUMNS)
        ledger = cls(tx, experiment_rows.from_values(columns[:split]), wake, now, revisions)
        ledger.known = {trial_id: trial_rows.from_values(columns[split:])}
        return ledger

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(self.tx.run_last)

    @property
    def state(self) -> ExperimentState:
        return self.experiment.state

    def change(self, **columns: object) -> None:
        """Changes the experiment."""
        self.notes += 1
        self.experiment = _replaced(self.experiment, columns)

    def event(self, kind: EventType, data: JsonObject) -> int:
        """Appends to the log; its number."""
        sequence = self.experiment.event_seq + 1
        self.change(event_seq=sequence)
        self._events.append({"experiment_id": self.experiment.id, "seq": sequence, "type": kind.value, "data": data})
        return sequence

    def move(self, target: ExperimentState, reason: str | None, **columns: object) -> None:
        """Changes the experiment's state and says so in the log. Raises IllegalTransition."""
        check_experiment_move(self.state, target)
        self.change(state=target, reason=reason, **columns)
        self.event(EventType.EXPERIMENT_STATE, {"state": target.value, "reason": reason})

    def trial(self, trial_id: str) -> StoredTrial:
        """Raises NotFound unless the trial belongs to this experiment."""
        found = self.known.get(trial_id) or self.trials([trial_id]).get(trial_id)
        if found is None:
            raise NotFound(f"there is no trial {trial_id!r}")
        return found

    def trials(self, trial_ids: Sequence[str]) -> dict[str, StoredTrial]:
        """Those of the trials that belong to this experiment."""
        self._write()
        found = trial_rows.get_many(self.tx, trial_ids)
        return {key: trial for key, trial in found.items() if trial.experiment_id == self.experiment.id}

    def trials_in(self, *states: TrialState, limit: int | None = None) -> list[StoredTrial]:
        """The trials in these states, by number."""
        self._write()
        return trial_rows.in_states(self.tx, self.experiment.id, states, limit=limit)

    def epochs_measured(self, trial_ids: Sequence[str]) -> dict[str, set[int]]:
        """The epochs that each trial has reported."""
        self._write()
        return trial_rows.epochs_measured(self.tx, trial_ids)

    def add_trial(self, trial: StoredTrial) -> StoredTrial:
        """Adds a trial that runs at once; the trial as it will be written."""
        self._made[trial.id] = self.known[trial.id] = added = _replaced(
            trial, {"changed_seq": self.experiment.event_seq}
        )
        self.change(trials_created=self.experiment.trials_created + 1)
        self._count(trial.state, +1)
        return added

    def add_measurement(self, row: Mapping[str, object]) -> None:
        self._measured.append({**row, "experiment_id": self.experiment.id})

    def add_answer(self, key: str, fingerprint: str, *, status: int, body: str) -> None:
        """Remembers an answer for its Idempotency-Key; the transaction fails when the key has one already."""
        row = {"project_id": self.experiment.project_id, "key": key, "fingerprint": fingerprint}
        self.notes += 1
        self._answered.append({**row, "status": status, "body": body})

    def update_trial(self, trial: StoredTrial, **columns: object) -> StoredTrial:
        """Changes a trial; the trial as it will be written."""
        updated = _replaced(trial, {**columns, "changed_seq": self.experiment.event_seq})
        noted = self._made if trial.id in self._made else self._changed
        noted[trial.id] = self.known[trial.id] = updated
        self.notes += 1
        return updated

    def move_trial(self, trial: StoredTrial, target: TrialState, **columns: object) -> StoredTrial:
        """Changes a trial's state and says so in the log. Raises IllegalTransition."""
        check_trial_move(trial.state, target)
        moved = _replaced(trial, {**columns, "state": target})
        data: JsonObject = {
            "trial": moved.id,
            "number": moved.number,
            "state": target.value,
            "reason": moved.reason,
            "attempts": moved.attempts,
            "value": moved.value,
        }
        sequence = self.event(EventType.TRIAL_STATE, data)
        self._count(trial.state, -1)
        self._count(target, +1)
        return self.update_trial(moved, result_seq=sequence if target.finished else None)

    def _count(self, state: TrialState, change: int) -> None:
        now = self.experiment
        if state.finished:
            self.change(trials_finished=now.trials_finished + change)
        elif state is TrialState.RUNNING:
            self.change(trials_running=now.trials_running + change)
        elif state is TrialState.QUEUED:
            self.change(trials_queued=now.trials_queued + change)

    def _write(self, run: Callable[[bytes, Mapping[str, object]], None] | None = None) -> None:
        """Sends what was noted to Postgres, so that the reads of this transaction see it."""
        noted = (self._made, self._changed, self._measured, self._events, self._answered)
        if self.experiment == self._written and not any(noted):
            return
        parts, submitted, parameters = self._noted()
        (run or self.tx.run)(sql.write(parts, submitted=submitted), parameters)
        self._wake_readers()
        self._written, self.revision = self.experiment, self._own_revision
        for notes in noted:
            notes.clear()

    def _wake_readers(self) -> None:
        if self._events and self._wake is not None:
            wake, experiment_id = self._wake, self.experiment.id
            self.tx.after_commit(lambda: wake(experiment_id), once=("events", experiment_id))

    def _noted(self) -> tuple[frozenset[str], bool, Mapping[str, object]]:
        """The parts of all that was noted, whether it changes what was submitted, and the parameters to write it."""
        then, now = self._written, self.experiment
        submitted = any(getattr(now, name) is not getattr(then, name) for name in sql.SUBMITTED_CHANGES)
        changed = [_columns(trial, sql.CHANGED_TRIAL) for trial in self._changed.values()]
        noted: dict[str, object] = {
            "made": list(self._made.values()),
            "changed": changed[0] if len(changed) == 1 else None,
            "changed_many": changed if len(changed) > 1 else None,
            "measured": self._measured,
            "told": self._events,
            "answered": self._answered,
        }
        parts = {name: _json(notes) for name, notes in noted.items() if notes}
        names = ["id", *sql.RUNNING_CHANGES, *(sql.SUBMITTED_CHANGES if submitted else ())]
        return frozenset(parts), submitted, {**parts, "experiment": _json(_columns(now, names))}


def _split(row: tuple[object, ...]) -> tuple[datetime, tuple[str, str], list[object]]:
    """The time, the revisions and the columns of what was locked."""
    now, read, own, *columns = row
    assert isinstance(now, datetime)
    return now, (str(read), str(own)), columns


def _replaced(stored: _Stored, columns: Mapping[str, object]) -> _Stored:
    """`dataclasses.replace`, which takes ten times as long, and a report takes five of them."""
    new = object.__new__(type(stored))
    new.__dict__.update(stored.__dict__)
    new.__dict__.update(columns)
    return new


def _columns(stored: StoredTrial | StoredExperiment, names: Sequence[str]) -> dict[str, object]:
    return {name: getattr(stored, name) for name in names}


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
