"""Experiments: rows in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, and_, delete, func, insert, select, tuple_

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.states import ExperimentState
from service.db.models import ModelState
from service.db.session import Transaction
from service.db.tables import experiments, models, trials


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment as Postgres knows it. Times are aware UTC."""

    id: str
    project_id: str
    name: str
    mode: str
    state: ExperimentState
    reason: str | None
    dataset_id: str | None
    dataset_name: str | None
    network: str | None
    metric_name: str
    goal: Goal
    space: list[JsonValue]
    fixed: JsonObject
    max_trials: int
    max_epochs: int
    max_total_epochs: int | None
    max_seconds: float | None
    target: float | None
    stopping: str
    proposer: str
    priors: str | list[str]
    parallelism: int
    seed: int
    share_history: bool
    labels: dict[str, str]
    features: dict[str, float | str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    event_seq: int
    trials_created: int
    trials_finished: int
    trials_running: int
    trials_queued: int
    epochs: int
    best_trial_id: str | None
    best_value: float | None
    best_epoch: int | None
    rung_at: datetime | None
    model: int | None
    """The version of the project's model that was in use when it was submitted."""
    failed_shifts: int
    """By errors of our own, since the last epoch was measured."""

    @property
    def trials_paused(self) -> int:
        return self.trials_created - self.trials_finished - self.trials_running - self.trials_queued

    @property
    def trials_to_run(self) -> int:
        """Those that wait or are paused, and those that the budget still allows."""
        return self.max_trials - self.trials_finished - self.trials_running


COLUMNS = tuple(StoredExperiment.__dataclass_fields__)
_STATE, _GOAL = COLUMNS.index("state"), COLUMNS.index("goal")
_FIND = f"SELECT {', '.join(COLUMNS)} FROM experiments WHERE id = %(id)s".encode()  # noqa: S608 - names of ours
_FIND_IN_PROJECT = _FIND + b" AND project_id = %(project)s"


def from_values(columns: Sequence[object]) -> StoredExperiment:
    """An experiment from its columns in the order of `COLUMNS`."""
    values = list(columns)
    values[_STATE] = ExperimentState(str(values[_STATE]))
    values[_GOAL] = Goal(str(values[_GOAL]))
    return StoredExperiment(*values)  # type: ignore[arg-type]


def from_row(row: Row[tuple[object, ...]]) -> StoredExperiment:
    return from_values([row._mapping[name] for name in COLUMNS])


def insert_one(tx: Transaction, values: Mapping[str, object]) -> StoredExperiment:
    """Remembers which version of the project's model is in use, too."""
    model = select(models.c.version).where(
        models.c.project_id == values["project_id"], models.c.state == ModelState.CHAMPION.value
    )
    query = insert(experiments).values({**values, "model": model.scalar_subquery()})
    row = tx.connection.execute(query.returning(experiments)).one()
    return from_row(row)


def find(tx: Transaction, project_id: str, experiment_id: str) -> StoredExperiment | None:
    found = tx.rows(_FIND_IN_PROJECT, {"id": experiment_id, "project": project_id})
    return from_values(found[0]) if found else None


def find_for_worker(tx: Transaction, experiment_id: str) -> StoredExperiment | None:
    """Without a project: for workers, which serve them all."""
    found = tx.rows(_FIND, {"id": experiment_id})
    return from_values(found[0]) if found else None


def list_newest(
    tx: Transaction,
    project_id: str,
    *,
    state: ExperimentState | None,
    label: tuple[str, str] | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[StoredExperiment]:
    """The newest first; `before` is the (created_at, id) of the last one already seen."""
    conditions = [experiments.c.project_id == project_id]
    if state is not None:
        conditions.append(experiments.c.state == state)
    if label is not None:
        conditions.append(experiments.c.labels[label[0]].astext == label[1])
    if before is not None:
        conditions.append(tuple_(experiments.c.created_at, experiments.c.id) < tuple_(*before))
    query = (
        select(experiments)
        .where(and_(*conditions))
        .order_by(experiments.c.created_at.desc(), experiments.c.id.desc())
        .limit(limit)
    )
    return [from_row(row) for row in tx.connection.execute(query)]


def trial_counts(tx: Transaction, experiment_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many trials each experiment has in each state that occurs."""
    query = (
        select(trials.c.experiment_id, trials.c.state, func.count())
        .where(trials.c.experiment_id.in_(experiment_ids))
        .group_by(trials.c.experiment_id, trials.c.state)
    )
    counts: dict[str, dict[str, int]] = {experiment_id: {} for experiment_id in experiment_ids}
    for experiment_id, state, count in tx.connection.execute(query):
        counts[experiment_id][state] = count
    return counts


def with_open_work(tx: Transaction, limit: int = 1000) -> list[tuple[str, str]]:
    """(id, project) of the managed experiments on which one more worker could do something, the oldest first."""
    query = (
        select(experiments.c.id, experiments.c.project_id)
        .where(
            experiments.c.finished_at.is_(None),
            experiments.c.state.in_([ExperimentState.QUEUED, ExperimentState.RUNNING]),
            experiments.c.mode == "managed",
            experiments.c.trials_running < experiments.c.parallelism,
            experiments.c.trials_finished + experiments.c.trials_running < experiments.c.max_trials,
        )
        .order_by(experiments.c.created_at, experiments.c.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in tx.connection.execute(query)]


def delete_one(tx: Transaction, experiment_id: str) -> None:
    tx.connection.execute(delete(experiments).where(experiments.c.id == experiment_id))


def open_on_dataset(tx: Transaction, dataset_id: str) -> int:
    """How many experiments that are not finished use this dataset."""
    query = select(func.count()).where(experiments.c.dataset_id == dataset_id, experiments.c.finished_at.is_(None))
    return int(tx.connection.execute(query).scalar_one())
