"""One experiment, locked for the length of a transaction: everything that changes it goes through here.

The row lock is the experiment's mutex. Under it event numbers are given out without gaps, counters and the event log
move together with the trials, and a budget cannot be overdrawn. Lock order: the experiment, then its trials.

What is noted is written by one statement, when the block ends or before the next read: this is the hottest path of
the service, and a statement costs more than what it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from types import TracebackType

import orjson
from sqlalchemy import Select, func, select, text

from foretune.errors import NotFound
from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.states import ExperimentState, TrialState, check_experiment_move, check_trial_move
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.session import Transaction
from service.db.tables import experiments, trials
from service.db.trials import StoredTrial

Wake = Callable[[str], None]
"""Wakes whoever streams the events of this experiment; `Bus.publish`, where there is a bus."""

_SELECT = select(experiments, func.clock_timestamp().label("now"))
_TRIAL_CHANGES = [
    field.name
    for field in fields(StoredTrial)
    if field.name not in ("id", "experiment_id", "number", "configuration", "created_at")
]
_EXPERIMENT_CHANGES = [
    field.name
    for field in fields(StoredExperiment)
    if field.name not in ("id", "project_id", "mode", "dataset_id", "dataset_name", "network", "seed", "created_at")
]
_EVENT = "(experiment_id, seq, type, data)"
_MEASUREMENT = "(trial_id, epoch, experiment_id, seq, value, seconds, metrics)"
# The parts refer to nothing of each other: Postgres runs them on one snapshot. Foreign keys are checked at the end.
_WRITE = text(
    f"""
    WITH made AS (
        INSERT INTO trials SELECT row.* FROM jsonb_populate_recordset(NULL::trials, CAST(:made AS jsonb)) AS row
    ), changed AS (
        UPDATE trials SET {", ".join(f"{name} = row.{name}" for name in _TRIAL_CHANGES)}
        FROM jsonb_populate_recordset(NULL::trials, CAST(:changed AS jsonb)) AS row
        WHERE trials.id = row.id
    ), measured AS (
        INSERT INTO measurements {_MEASUREMENT}
        SELECT {_MEASUREMENT.strip("()")}
        FROM jsonb_populate_recordset(NULL::measurements, CAST(:measured AS jsonb))
        ON CONFLICT DO NOTHING
    ), told AS (
        INSERT INTO events {_EVENT}
        SELECT {_EVENT.strip("()")} FROM jsonb_populate_recordset(NULL::events, CAST(:told AS jsonb))
    )
    UPDATE experiments SET {", ".join(f"{name} = row.{name}" for name in _EXPERIMENT_CHANGES)}
    FROM jsonb_populate_record(NULL::experiments, CAST(:experiment AS jsonb)) AS row
    WHERE experiments.id = row.id
    """  # noqa: S608 - column names of our own tables
)


class Ledger:
    """Use as a context manager; what was noted is written when the block ends well.

    `experiment` is the experiment as it will be written: every change shows at once.
    """

    def __init__(self, tx: Transaction, experiment: StoredExperiment, wake: Wake | None, now: datetime) -> None:
        self.tx = tx
        self.experiment = experiment
        self.now = now
        """The database's clock: the only one that leases and budgets are judged by."""
        self._wake = wake
        self._written = experiment
        self._events: list[dict[str, object]] = []
        self._made: dict[str, StoredTrial] = {}
        self._changed: dict[str, StoredTrial] = {}
        self._measured: list[dict[str, object]] = []

    @classmethod
    def of_experiment(cls, tx: Transaction, experiment_id: str, *, project: str | None, wake: Wake | None) -> Ledger:
        """Locks the experiment. `project` None: a worker asks. Raises NotFound."""
        query = _SELECT.where(experiments.c.id == experiment_id)
        return cls._locked(tx, query, project, wake, f"there is no experiment {experiment_id!r}")

    @classmethod
    def of_trial(cls, tx: Transaction, trial_id: str, *, project: str | None, wake: Wake | None) -> Ledger:
        """Locks the experiment that the trial belongs to. Raises NotFound."""
        parent = select(trials.c.experiment_id).where(trials.c.id == trial_id).scalar_subquery()
        query = _SELECT.where(experiments.c.id == parent)
        return cls._locked(tx, query, project, wake, f"there is no trial {trial_id!r}")

    @classmethod
    def _locked(
        cls, tx: Transaction, query: Select[tuple[object, ...]], project: str | None, wake: Wake | None, missing: str
    ) -> Ledger:
        if project is not None:
            query = query.where(experiments.c.project_id == project)
        row = tx.connection.execute(query.with_for_update()).one_or_none()
        if row is None:
            raise NotFound(missing)
        return cls(tx, experiment_rows.from_row(row), wake, row._mapping["now"])

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()

    @property
    def state(self) -> ExperimentState:
        return self.experiment.state

    def change(self, **columns: object) -> None:
        """Changes the experiment."""
        self.experiment = replace(self.experiment, **columns)  # type: ignore[arg-type]

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
        found = self.trials([trial_id]).get(trial_id)
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

    def add_trial(self, trial: StoredTrial) -> StoredTrial:
        """Adds a trial that runs at once; the trial as it will be written."""
        self._made[trial.id] = added = replace(trial, changed_seq=self.experiment.event_seq)
        self.change(trials_created=self.experiment.trials_created + 1)
        self._count(trial.state, +1)
        return added

    def add_measurement(self, row: Mapping[str, object]) -> None:
        self._measured.append({**row, "experiment_id": self.experiment.id})

    def update_trial(self, trial: StoredTrial, **columns: object) -> StoredTrial:
        """Changes a trial; the trial as it will be written."""
        updated = replace(trial, **columns, changed_seq=self.experiment.event_seq)  # type: ignore[arg-type]
        noted = self._made if trial.id in self._made else self._changed
        noted[trial.id] = updated
        return updated

    def move_trial(self, trial: StoredTrial, target: TrialState, **columns: object) -> StoredTrial:
        """Changes a trial's state and says so in the log. Raises IllegalTransition."""
        check_trial_move(trial.state, target)
        moved = replace(trial, state=target, **columns)  # type: ignore[arg-type]
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

    def _write(self) -> None:
        """Sends what was noted to Postgres, so that the reads of this transaction see it."""
        if self.experiment == self._written and not (self._made or self._changed or self._measured or self._events):
            return
        self.tx.connection.execute(
            _WRITE,
            {
                "made": _json([_row(trial) for trial in self._made.values()]),
                "changed": _json([_row(trial) for trial in self._changed.values()]),
                "measured": _json(self._measured),
                "told": _json(self._events),
                "experiment": _json(_row(self.experiment)),
            },
        )
        if self._events and self._wake is not None:
            wake, experiment_id = self._wake, self.experiment.id
            self.tx.after_commit(lambda: wake(experiment_id), once=("events", experiment_id))
        self._written = self.experiment
        for noted in (self._made, self._changed, self._measured, self._events):
            noted.clear()


def _row(stored: StoredTrial | StoredExperiment) -> dict[str, object]:
    return {field.name: getattr(stored, field.name) for field in fields(stored)}


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
