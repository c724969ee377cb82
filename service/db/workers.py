"""Workers: who is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from service.db.session import Transaction
from service.db.tables import workers


@dataclass(frozen=True)
class Company:
    """Who trains, as one train worker sees it that works on an experiment."""

    held: int
    """The trials of the experiment that this worker runs."""
    beside: int
    """The other workers that run trials of the experiment."""
    idle: int
    """The other train workers that run nothing, and were seen of late."""


# Asked before each trial of a worker that may share; put together by SQLAlchemy it was most of a claim (docs/LOG.md).
_COMPANY = b"""
    SELECT count(*) FILTER (WHERE experiment_id = %(experiment)s AND worker = %(worker)s),
        count(DISTINCT worker) FILTER (WHERE experiment_id = %(experiment)s AND worker <> %(worker)s),
        (
            SELECT count(*) FROM workers AS w
            WHERE w.kind = 'train' AND w.id <> %(worker)s AND w.seen_at > now() - %(within)s
            AND NOT EXISTS (SELECT FROM trials AS t WHERE t.state = 'RUNNING' AND t.worker = w.id)
        )
    FROM trials WHERE state = 'RUNNING'
"""


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
    ((held, beside, idle),) = tx.rows(_COMPANY, {"experiment": experiment_id, "worker": worker, "within": within})
    return Company(int(str(held)), int(str(beside)), int(str(idle)))
