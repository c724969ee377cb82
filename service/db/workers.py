"""Workers: who is there."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from service.db.session import Transaction
from service.db.tables import workers


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
