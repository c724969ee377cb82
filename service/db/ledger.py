"""One experiment, locked for the length of a transaction: everything that changes it goes through here.

The row lock is the experiment's mutex. Under it event numbers are given out without gaps, counters and the event log
move together with the trials, and a budget cannot be overdrawn. Lock order: the experiment, then its trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType

from sqlalchemy import Select, func, insert, select, update

from foretune.errors import NotFound
from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.states import ExperimentState, TrialState, check_experiment_move, check_trial_move
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.session import Transaction
from service.db.tables import events, experiments, trials
from service.db.trials import StoredTrial

Wake = Callable[[str], None]
"""Wakes whoever streams the events of this experiment; `Bus.publish`, where there is a bus."""

_SELECT = select(experiments, func.clock_timestamp().label("now"))


class Ledger:
    """Use as a context manager; what was noted is written when the block ends well."""

    def __init__(self, tx: Transaction, experiment: StoredExperiment, wake: Wake | None, now: datetime) -> None:
        self.tx = tx
        self.experiment = experiment
        self.now = now
        """The database's clock: the only one that leases and budgets are judged by."""
        self._wake = wake
        self._sequence = experiment.event_seq
        self._events: list[dict[str, object]] = []
        self._changes: dict[str, object] = {}
        self._new_trials: list[Mapping[str, object]] = []
        self._measurements: list[Mapping[str, object]] = []

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
    def sequence(self) -> int:
        """The number of the newest event."""
        return self._sequence

    def current(self, column: str) -> object:
        """A counter of the experiment as it will be written."""
        return self._changes.get(column, getattr(self.experiment, column))

    def count(self, column: str) -> int:
        value = self.current(column)
        assert isinstance(value, int)
        return value

    @property
    def state(self) -> ExperimentState:
        return ExperimentState(str(self.current("state")))

    def change(self, **columns: object) -> None:
        self._changes.update(columns)

    def event(self, kind: EventType, data: JsonObject) -> int:
        """Appends to the log; its number."""
        self._sequence += 1
        self._events.append(
            {"experiment_id": self.experiment.id, "seq": self._sequence, "type": kind.value, "data": data}
        )
        return self._sequence

    def move(self, target: ExperimentState, reason: str | None, **columns: object) -> None:
        """Changes the experiment's state and says so in the log. Raises IllegalTransition."""
        check_experiment_move(self.state, target)
        self.change(state=target.value, reason=reason, **columns)
        self.event(EventType.EXPERIMENT_STATE, {"state": target.value, "reason": reason})

    def trial(self, trial_id: str) -> StoredTrial:
        """Raises NotFound unless the trial belongs to this experiment."""
        found = trial_rows.get(self.tx, trial_id)
        if found is None or found.experiment_id != self.experiment.id:
            raise NotFound(f"there is no trial {trial_id!r}")
        return found

    def add_trial(self, row: Mapping[str, object]) -> None:
        self._new_trials.append({**row, "changed_seq": self._sequence})

    def add_measurement(self, row: Mapping[str, object]) -> None:
        self._measurements.append({**row, "experiment_id": self.experiment.id})

    def update_trial(self, trial: StoredTrial, **columns: object) -> None:
        """Writes to a trial and marks it as changed."""
        columns["changed_seq"] = self._sequence
        held = trial_rows.update_one(self.tx, trial.id, attempts=trial.attempts, values=columns)
        assert held, "the ledger's lock keeps everybody else away"

    def move_trial(self, trial: StoredTrial, target: TrialState, **columns: object) -> None:
        """Changes a trial's state and says so in the log. Raises IllegalTransition."""
        check_trial_move(trial.state, target)
        data: JsonObject = {
            "trial": trial.id,
            "number": trial.number,
            "state": target.value,
            "reason": _text(columns.get("reason")),
            "attempts": _integer(columns.get("attempts", trial.attempts)),
            "value": _number(columns.get("value", trial.value)),
        }
        sequence = self.event(EventType.TRIAL_STATE, data)
        if target.finished:
            columns["result_seq"] = sequence
            self.change(trials_finished=self.count("trials_finished") + 1)
        self.update_trial(trial, state=target.value, **columns)

    def _write(self) -> None:
        connection = self.tx.connection
        if self._new_trials:
            trial_rows.insert_many(self.tx, self._new_trials)
        if self._measurements:
            trial_rows.insert_measurements(self.tx, self._measurements)
        if self._events:
            connection.execute(insert(events), self._events)
            self._changes["event_seq"] = self._sequence
        if self._changes:
            connection.execute(update(experiments).where(experiments.c.id == self.experiment.id).values(self._changes))
        if self._events and self._wake is not None:
            wake, experiment_id = self._wake, self.experiment.id
            self.tx.after_commit(lambda: wake(experiment_id), once=("events", experiment_id))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
