"""The questions that upkeep asks about everybody's rows."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, or_, select

from foretune.states import ExperimentState
from service.db.session import Transaction
from service.db.tables import datasets, experiments, idempotency_keys, workers

_IDEMPOTENCY_KEPT = timedelta(hours=24)
_WORKERS_KEPT = timedelta(minutes=10)


def open_experiments(tx: Transaction, quiet_for: timedelta, limit: int = 200) -> list[str]:
    """Experiments that are not finished and for which nobody has rung lately, the oldest ring first."""
    query = (
        select(experiments.c.id)
        .where(
            experiments.c.finished_at.is_(None),
            experiments.c.state != ExperimentState.PAUSED,
            or_(experiments.c.rung_at.is_(None), experiments.c.rung_at < func.now() - quiet_for),
        )
        .order_by(experiments.c.rung_at.asc().nulls_first())
        .limit(limit)
    )
    return list(tx.connection.execute(query).scalars())


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
