"""Workers: who is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from service.db.session import Transaction
from service.db.tables import trials, workers


@dataclass(frozen=True)
class Company:
    """Who trains, as one train worker sees it that works on an experiment."""

    held: int
    """The trials of the experiment that this worker runs."""
    beside: int
    """The other workers that run trials of the experiment."""
    idle: int
    """The other train workers that run nothing, and were seen of late."""


def seen(tx: Transaction, worker_id: str, *, kind: str, host: str, pid: int, device: str | None) -> None:
    """Writes down that this worker is alive."""
    statement = insert(workers).values(id=worker_id, kind=kind, host=host, pid=pid, device=device)
    tx.connection.execute(
        statement.on_conflict_do_update(index_elements=[workers.c.id], set_={"seen_at": func.now(), "device": device})
    )


def gone(tx: Transaction, worker_id: str) -> None:
    tx.connection.execute(delete(workers).where(workers.c.id == worker_id))


def alive(tx: Transaction, within: timedelta) -> dict[str, int]:
    """How many workers of each kind were seen within this time."""
    query = select(workers.c.kind, func.count()).where(workers.c.seen_at > func.now() - within).group_by(workers.c.kind)
    return {row[0]: row[1] for row in tx.connection.execute(query)}


def company(tx: Transaction, experiment_id: str, worker: str, within: timedelta) -> Company:
    """Who else could train this experiment beside `worker`; `within`: how lately an idle one must have been seen."""
    running = trials.c.state == "RUNNING"
    here = trials.c.experiment_id == experiment_id
    idle = (
        select(func.count())
        .where(workers.c.kind == "train", workers.c.id != worker, workers.c.seen_at > func.now() - within)
        .where(~exists().where(running, trials.c.worker == workers.c.id))
        .scalar_subquery()
    )
    query = select(
        func.count().filter(here, trials.c.worker == worker),
        func.count(trials.c.worker.distinct()).filter(here, trials.c.worker != worker),
        idle,
    ).where(running)
    return Company(*tx.connection.execute(query).one())
