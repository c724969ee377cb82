"""Trials and their measurements: rows in, values out. Whoever writes holds the experiment's ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, cast

import orjson
from sqlalchemy import Row, bindparam, func, select, update

from foretune.json_types import JsonObject
from foretune.states import TrialState
from service.db import experiments as experiment_rows
from service.db.experiments import StoredExperiment
from service.db.session import Transaction
from service.db.tables import experiments, measurements, trials


@dataclass(frozen=True)
class StoredTrial:
    """A trial as Postgres knows it."""

    id: str
    experiment_id: str
    number: int
    state: TrialState
    reason: str | None
    configuration: JsonObject
    hyperparameters: JsonObject
    lr_schedule: JsonObject | None
    max_epochs: int
    origin: str
    predicted: JsonObject | None
    proposal: JsonObject
    attempts: int
    lease: str | None
    lease_until: datetime | None
    worker: str | None
    epochs: int
    value: float | None
    best_value: float | None
    best_epoch: int | None
    seconds: float
    checkpoint: JsonObject | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    changed_seq: int
    result_seq: int | None


@dataclass(frozen=True)
class StoredMeasurement:
    epoch: int
    value: float | None
    seconds: float | None
    metrics: dict[str, float]
    created_at: datetime


class SeenTrial(NamedTuple):
    """A trial as the meta-learner needs it. A tuple, because thousands are made at once."""

    id: str
    number: int
    state: TrialState
    configuration: JsonObject
    best_value: float | None
    epochs: int
    changed_seq: int
    result_seq: int | None


COLUMNS = tuple(StoredTrial.__dataclass_fields__)
_STATE = COLUMNS.index("state")
_STATES = {state.value: state for state in TrialState}
_EXPERIMENT = len(experiment_rows.COLUMNS)
_SEEN = tuple(f"array_agg({name})" for name in SeenTrial._fields if name != "configuration")
# One statement takes two thirds of the processor time of two in a pipeline, and sees one moment. A row of arrays, with
# all configurations as one text, is read in half of the time that thousands of rows take.
_CHANGED_SINCE = f"""
    SELECT {", ".join(f"experiments.{name}" for name in experiment_rows.COLUMNS)}, changed.*
    FROM experiments, LATERAL (
        SELECT json_agg(configuration)::text, {", ".join(_SEEN)}
        FROM (
            SELECT {", ".join(SeenTrial._fields)} FROM trials
            WHERE experiment_id = %(experiment)s AND changed_seq > %(seq)s
            ORDER BY changed_seq, number
        ) AS one
    ) AS changed
    WHERE experiments.id = %(experiment)s
""".encode()  # noqa: S608 - names of ours


def from_values(columns: Sequence[object]) -> StoredTrial:
    """A trial from its columns in the order of `COLUMNS`."""
    values = list(columns)
    values[_STATE] = TrialState(str(values[_STATE]))
    return StoredTrial(*values)  # type: ignore[arg-type]


def from_row(row: Row[tuple[object, ...]]) -> StoredTrial:
    return from_values([row._mapping[name] for name in COLUMNS])


def find(tx: Transaction, project_id: str, trial_id: str) -> StoredTrial | None:
    query = (
        select(trials)
        .join(experiments, experiments.c.id == trials.c.experiment_id)
        .where(trials.c.id == trial_id, experiments.c.project_id == project_id)
    )
    row = tx.connection.execute(query).one_or_none()
    return from_row(row) if row else None


def get_many(tx: Transaction, trial_ids: Sequence[str]) -> dict[str, StoredTrial]:
    rows = tx.connection.execute(select(trials).where(trials.c.id.in_(trial_ids)))
    return {trial.id: trial for trial in map(from_row, rows)}


def in_states(
    tx: Transaction, experiment_id: str, states: Sequence[TrialState], *, limit: int | None = None
) -> list[StoredTrial]:
    """By number."""
    query = (
        select(trials)
        .where(trials.c.experiment_id == experiment_id, trials.c.state.in_(states))
        .order_by(trials.c.number)
        .limit(limit)
    )
    return [from_row(row) for row in tx.connection.execute(query)]


def list_by_number(
    tx: Transaction, experiment_id: str, *, state: TrialState | None, after: int, limit: int
) -> list[StoredTrial]:
    query = select(trials).where(trials.c.experiment_id == experiment_id, trials.c.number > after)
    if state is not None:
        query = query.where(trials.c.state == state)
    return [from_row(row) for row in tx.connection.execute(query.order_by(trials.c.number).limit(limit))]


def changed_since(tx: Transaction, experiment_id: str, seq: int) -> tuple[StoredExperiment, list[SeenTrial]] | None:
    """The experiment, and its trials that changed after event `seq`, in the order of their last change."""
    rows = tx.rows(_CHANGED_SINCE, {"experiment": experiment_id, "seq": seq})
    if not rows:
        return None
    experiment = experiment_rows.from_values(rows[0][:_EXPERIMENT])
    configurations, *columns = cast(tuple[str | None, *tuple[list[object], ...]], rows[0][_EXPERIMENT:])
    if configurations is None:
        return experiment, []
    ids, numbers, states, *others = columns
    known = map(_STATES.__getitem__, cast(list[str], states))
    changed = zip(ids, numbers, known, orjson.loads(configurations), *others, strict=True)
    return experiment, [SeenTrial(*one) for one in changed]


def extend_leases(tx: Transaction, leases: Mapping[str, int], seconds: float) -> set[str]:
    """Extends the leases of running trials, `{trial_id: attempts}`; the ids that are still held."""
    if not leases:
        return set()
    statement = (
        update(trials)
        .where(
            trials.c.id == bindparam("trial_id"),
            trials.c.attempts == bindparam("token"),
            trials.c.state == TrialState.RUNNING,
        )
        .values(lease_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
        .returning(trials.c.id)
    )
    held: set[str] = set()
    # Sorted, so that two processes never wait for each other's rows.
    for trial_id in sorted(leases):
        parameters = {"trial_id": trial_id, "token": leases[trial_id]}
        held.update(tx.connection.execute(statement, parameters).scalars())
    return held


def expired(tx: Transaction, limit: int = 500) -> list[tuple[str, str]]:
    """(experiment_id, trial_id) of running trials whose lease is over."""
    query = (
        select(trials.c.experiment_id, trials.c.id)
        .where(trials.c.state == TrialState.RUNNING, trials.c.lease_until < func.now())
        .order_by(trials.c.experiment_id, trials.c.number)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in tx.connection.execute(query)]


def epochs_measured(tx: Transaction, trial_ids: Sequence[str]) -> dict[str, set[int]]:
    query = select(measurements.c.trial_id, measurements.c.epoch).where(measurements.c.trial_id.in_(trial_ids))
    measured: dict[str, set[int]] = {trial_id: set() for trial_id in trial_ids}
    for trial_id, epoch in tx.connection.execute(query):
        measured[trial_id].add(epoch)
    return measured


def list_measurements(tx: Transaction, trial_id: str, *, after: int, limit: int) -> list[StoredMeasurement]:
    columns = (
        measurements.c.epoch,
        measurements.c.value,
        measurements.c.seconds,
        measurements.c.metrics,
        measurements.c.created_at,
    )
    query = (
        select(*columns)
        .where(measurements.c.trial_id == trial_id, measurements.c.epoch > after)
        .order_by(measurements.c.epoch)
        .limit(limit)
    )
    return [StoredMeasurement(**row._mapping) for row in tx.connection.execute(query)]


def curve_points_since(tx: Transaction, experiment_id: str, seq: int) -> list[tuple[str, int, float | None, int]]:
    """(trial_id, epoch, value, event number) of what was measured after event `seq`, in that order."""
    query = (
        select(measurements.c.trial_id, measurements.c.epoch, measurements.c.value, measurements.c.seq)
        .where(measurements.c.experiment_id == experiment_id, measurements.c.seq > seq)
        .order_by(measurements.c.seq)
    )
    return [(row[0], row[1], row[2], row[3]) for row in tx.connection.execute(query)]


def artifacts_of(tx: Transaction, experiment_id: str) -> list[str]:
    """The artifacts of an experiment's trials."""
    query = select(trials.c.checkpoint).where(trials.c.experiment_id == experiment_id, trials.c.checkpoint.is_not(None))
    return [str(one["artifact"]) for kept in tx.connection.execute(query).scalars() for one in ring_of(kept)]


def ring_of(checkpoint: JsonObject | None) -> list[JsonObject]:
    """Epoch and artifact of each checkpoint that a trial's row knows, the newest first."""
    ring: list[JsonObject] = []
    while isinstance(checkpoint, dict):
        ring.append({"epoch": checkpoint["epoch"], "artifact": checkpoint["artifact"]})
        before = checkpoint.get("before")
        checkpoint = before if isinstance(before, dict) else None
    return ring
