"""The questions that upkeep asks about everybody's rows."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, or_, select, update

from foretune.events import EventType
from foretune.states import ExperimentState
from foretune.wire.experiments import Mode
from service.db.session import Transaction
from service.db.tables import datasets, events, experiments, idempotency_keys, measurements, workers
from service.db.trials import StoredTrial

_IDEMPOTENCY_KEPT = timedelta(hours=24)
_WORKERS_KEPT = timedelta(minutes=10)


def open_experiments(tx: Transaction, quiet_for: timedelta, limit: int = 200) -> list[str]:
    """Experiments that upkeep may have to end or ring for and has not lately, those that wait longest first.

    An external one is its client's affair, unless its time is limited.
    """
    query = (
        select(experiments.c.id)
        .where(
            experiments.c.finished_at.is_(None),
            experiments.c.state != ExperimentState.PAUSED,
            or_(experiments.c.mode == Mode.MANAGED.value, experiments.c.max_seconds.is_not(None)),
            or_(experiments.c.rung_at.is_(None), experiments.c.rung_at < func.now() - quiet_for),
        )
        .order_by(experiments.c.rung_at.asc().nulls_first())
        .limit(limit)
    )
    return list(tx.connection.execute(query).scalars())


def losses_in_a_row(tx: Transaction, trial: StoredTrial) -> int:
    """How often the trial's holder was lost, as the log tells, since it last measured anything."""
    measured = select(func.coalesce(func.max(measurements.c.seq), 0)).where(measurements.c.trial_id == trial.id)
    query = select(func.count()).where(
        events.c.experiment_id == trial.experiment_id,
        events.c.seq > measured.scalar_subquery(),
        events.c.type == EventType.WORKER_LOST.value,
        events.c.data["trial"].astext == trial.id,
    )
    return int(tx.connection.execute(query).scalar_one())


def finished_untidied(tx: Transaction, ago: timedelta, limit: int) -> list[str]:
    """Managed experiments that ended so long ago, and whose checkpoints nobody went through since."""
    query = (
        select(experiments.c.id)
        .where(
            experiments.c.mode == Mode.MANAGED.value,
            experiments.c.finished_at < func.now() - ago,
            experiments.c.tidied_at.is_(None),
        )
        .order_by(experiments.c.finished_at)
        .limit(limit)
    )
    return list(tx.connection.execute(query).scalars())


def mark_tidied(tx: Transaction, experiment_id: str) -> None:
    tx.connection.execute(update(experiments).where(experiments.c.id == experiment_id).values(tidied_at=func.now()))


def stuck_datasets(tx: Transaction, quiet_for: timedelta) -> list[str]:
    """Datasets that nobody parsed yet."""
    query = select(datasets.c.id).where(datasets.c.state == "PARSING", datasets.c.created_at < func.now() - quiet_for)
    return list(tx.connection.execute(query.limit(100)).scalars())


def forget_old(tx: Transaction) -> None:
    """Drops what has served its time: old idempotency keys, workers that are long gone."""
    tx.connection.execute(
        delete(idempotency_keys).where(idempotency_keys.c.created_at < func.now() - _IDEMPOTENCY_KEPT)
    )
    tx.connection.execute(delete(workers).where(workers.c.seen_at < func.now() - _WORKERS_KEPT))
