"""Small questions about the whole database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, text

from service.db.session import Transaction
from service.db.tables import datasets, experiments, networks, trials, workers


@dataclass(frozen=True)
class Totals:
    """Over all experiments that exist."""

    experiments: int
    trials_created: int
    trials_finished: int
    epochs: int


def revision(tx: Transaction) -> str | None:
    """The schema's revision; None when it was never migrated."""
    if not tx.connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one():
        return None
    return tx.connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def live_workers(tx: Transaction, within: timedelta) -> dict[str, int]:
    """How many workers of each kind were seen within that time."""
    query = select(workers.c.kind, func.count()).where(workers.c.seen_at > func.now() - within)
    return {kind: count for kind, count in tx.connection.execute(query.group_by(workers.c.kind))}  # noqa: C416


def networks_published(tx: Transaction) -> bool:
    return tx.connection.execute(select(networks.c.name).limit(1)).scalar() is not None


def builtin_datasets_published(tx: Transaction) -> bool:
    return (
        tx.connection.execute(select(datasets.c.id).where(datasets.c.project_id.is_(None)).limit(1)).scalar()
        is not None
    )


def open_trials_by_state(tx: Transaction) -> dict[str, int]:
    """Trials of experiments that are not finished: the finished ones are counted in `totals`, without reading them."""
    query = (
        select(trials.c.state, func.count())
        .join(experiments, experiments.c.id == trials.c.experiment_id)
        .where(experiments.c.finished_at.is_(None))
        .group_by(trials.c.state)
    )
    return {state: count for state, count in tx.connection.execute(query)}  # noqa: C416


def experiments_by_state(tx: Transaction) -> dict[str, int]:
    query = select(experiments.c.state, func.count()).group_by(experiments.c.state)
    return {state: count for state, count in tx.connection.execute(query)}  # noqa: C416


def totals(tx: Transaction) -> Totals:
    query = select(
        func.count(),
        func.coalesce(func.sum(experiments.c.trials_created), 0),
        func.coalesce(func.sum(experiments.c.trials_finished), 0),
        func.coalesce(func.sum(experiments.c.epochs), 0),
    ).select_from(experiments)
    row = tx.connection.execute(query).one()
    return Totals(*(int(number) for number in row))
