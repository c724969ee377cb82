"""The event log: read here; written through the ledger alone."""

from __future__ import annotations

from sqlalchemy import select

from foretune.events import Event, EventType
from service.db.session import Transaction
from service.db.tables import events


def after(tx: Transaction, experiment_id: str, sequence: int, limit: int) -> list[Event]:
    query = (
        select(events.c.seq, events.c.type, events.c.data)
        .where(events.c.experiment_id == experiment_id, events.c.seq > sequence)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [Event(row[0], EventType(row[1]), row[2]) for row in tx.connection.execute(query)]
