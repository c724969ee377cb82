"""Histories: finished experiments as arrays. Rows in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.states import TrialState
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.session import Transaction
from service.db.tables import experiments, histories, measurements, trials
from service.db.trials import StoredTrial

RESULTS = (TrialState.COMPLETED, TrialState.STOPPED, TrialState.INFEASIBLE)
"""The states of a trial that says something about its configuration."""


@dataclass(frozen=True)
class StoredHistory:
    """A history without its curves, which proposals do not read."""

    fingerprint: str
    experiment_id: str | None
    name: str
    network: str | None
    dataset_id: str | None
    dataset_name: str | None
    metric_name: str
    goal: Goal
    max_epochs: int
    space: list[JsonValue]
    fixed: JsonObject
    features: dict[str, float | str]
    configurations: dict[str, list[JsonValue]]
    results: list[float | None]
    ended_at: datetime
    created_at: datetime

    @property
    def reference(self) -> str:
        """What names it to clients: the experiment, or for an imported one a name of its own."""
        return self.experiment_id or reference_of(self.fingerprint)


_READ = [histories.c[name] for name in StoredHistory.__dataclass_fields__]


def reference_of(fingerprint: str) -> str:
    """The name of an imported history."""
    return f"his_{fingerprint[:22]}"


def insert_unless_known(tx: Transaction, row: Mapping[str, object]) -> bool:
    """False when the project has a history that says the same."""
    statement = upsert(histories).values(row).on_conflict_do_nothing().returning(histories.c.fingerprint)
    return tx.connection.execute(statement).scalar() is not None


def list_ended(
    tx: Transaction,
    project_id: str,
    *,
    before: datetime | None,
    experiment_ids: Sequence[str] | None = None,
    fingerprints: Sequence[str] | None = None,
    limit: int,
) -> list[StoredHistory]:
    """The newest first, of all, of these experiments or with these fingerprints; `before`: what had ended by then."""
    query = select(*_READ).where(histories.c.project_id == project_id)
    if before is not None:
        query = query.where(histories.c.ended_at < before)
    if experiment_ids is not None:
        query = query.where(histories.c.experiment_id.in_(experiment_ids))
    if fingerprints is not None:
        query = query.where(histories.c.fingerprint.in_(fingerprints))
    query = query.order_by(histories.c.ended_at.desc(), histories.c.fingerprint).limit(limit)
    return [_from_row(row) for row in tx.connection.execute(query).mappings()]


def fingerprints(tx: Transaction, project_id: str, limit: int) -> list[str]:
    """The newest first."""
    query = select(histories.c.fingerprint).where(histories.c.project_id == project_id)
    query = query.order_by(histories.c.ended_at.desc(), histories.c.fingerprint).limit(limit)
    return list(tx.connection.execute(query).scalars())


def count(tx: Transaction, project_id: str) -> tuple[int, int]:
    """How many histories the project has, and how many trials they hold."""
    query = select(func.count(), func.coalesce(func.sum(histories.c.trials), 0)).where(
        histories.c.project_id == project_id
    )
    number, held = tx.connection.execute(query).one()
    return int(number), int(held)


def count_imported(tx: Transaction, project_id: str) -> int:
    query = select(func.count()).where(histories.c.project_id == project_id, histories.c.experiment_id.is_(None))
    return int(tx.connection.execute(query).scalar_one())


def newest(tx: Transaction, project_id: str) -> datetime | None:
    """When the newest history was written."""
    query = select(func.max(histories.c.created_at)).where(histories.c.project_id == project_id)
    found: datetime | None = tx.connection.execute(query).scalar_one()
    return found


def finished_uncompacted(tx: Transaction, project_id: str | None, limit: int) -> list[StoredExperiment]:
    """Finished experiments without a history, locked; those that another transaction holds are its affair."""
    query = (
        select(experiments)
        .where(experiments.c.finished_at.is_not(None), experiments.c.compacted_at.is_(None))
        .order_by(experiments.c.finished_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    if project_id is not None:
        query = query.where(experiments.c.project_id == project_id)
    return [experiment_rows.from_row(row) for row in tx.connection.execute(query)]


def any_uncompacted(tx: Transaction, project_id: str, before: datetime | None) -> bool:
    """Whether a history is missing of an experiment that had ended by `before`."""
    query = select(experiments.c.id).where(
        experiments.c.project_id == project_id,
        experiments.c.finished_at.is_not(None),
        experiments.c.compacted_at.is_(None),
    )
    if before is not None:
        query = query.where(experiments.c.finished_at < before)
    return tx.connection.execute(query.limit(1)).first() is not None


def mark_compacted(tx: Transaction, experiment_id: str) -> None:
    tx.connection.execute(update(experiments).where(experiments.c.id == experiment_id).values(compacted_at=func.now()))


def result_trials(tx: Transaction, experiment_id: str, limit: int) -> list[StoredTrial]:
    """The trials with a result, in the order in which they came; of more than `limit`, evenly spread ones."""
    order = (
        select(trials.c.id, func.row_number().over(order_by=trials.c.result_seq).label("place"))
        .where(trials.c.experiment_id == experiment_id, trials.c.state.in_(RESULTS), trials.c.result_seq.is_not(None))
        .subquery()
    )
    total = int(tx.connection.execute(select(func.count()).select_from(order)).scalar_one())
    query = select(trials).join(order, order.c.id == trials.c.id).order_by(order.c.place)
    if total > limit:
        query = query.where((order.c.place * limit) // total != ((order.c.place - 1) * limit) // total)
    return [trial_rows.from_row(row) for row in tx.connection.execute(query)]


def curves(tx: Transaction, experiment_id: str, trial_ids: Sequence[str], every: int) -> dict[str, list[float | None]]:
    """The value at every `every`-th epoch by trial; None where nothing was measured or it was no number."""
    query = (
        select(measurements.c.trial_id, measurements.c.epoch, measurements.c.value)
        .where(
            measurements.c.trial_id.in_(trial_ids),
            measurements.c.experiment_id == experiment_id,
            measurements.c.epoch % every == 0,
        )
        .order_by(measurements.c.trial_id, measurements.c.epoch)
    )
    found: dict[str, list[float | None]] = {trial_id: [] for trial_id in trial_ids}
    for trial_id, epoch, value in tx.connection.execute(query):
        curve = found[trial_id]
        curve.extend([None] * (epoch // every - 1 - len(curve)))
        curve.append(value)
    return found


def _from_row(row: RowMapping) -> StoredHistory:
    return StoredHistory(**{**row, "goal": Goal(row["goal"])})
