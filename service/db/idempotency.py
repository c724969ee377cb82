"""Answers to creating calls, kept for a day so that a client may safely ask twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from service.db.session import Transaction
from service.db.tables import idempotency_keys


@dataclass(frozen=True)
class StoredAnswer:
    """`status` 0: the first call with this key has not answered yet."""

    fingerprint: str
    status: int
    body: str


def claim(tx: Transaction, project_id: str, key: str, fingerprint: str) -> bool:
    """Takes the key for this transaction; False when it has been used.

    While another transaction holds the same key this waits for its end: for its answer, or for it to roll back.
    """
    statement = upsert(idempotency_keys).values(
        project_id=project_id, key=key, fingerprint=fingerprint, status=0, body=""
    )
    claimed = statement.on_conflict_do_nothing().returning(idempotency_keys.c.key)
    return tx.connection.execute(claimed).scalar() is not None


def find(tx: Transaction, project_id: str, key: str) -> StoredAnswer | None:
    query = select(idempotency_keys.c.fingerprint, idempotency_keys.c.status, idempotency_keys.c.body).where(
        idempotency_keys.c.project_id == project_id, idempotency_keys.c.key == key
    )
    row = tx.connection.execute(query).one_or_none()
    return StoredAnswer(row.fingerprint, row.status, row.body) if row else None


def answer(tx: Transaction, project_id: str, key: str, *, status: int, body: str) -> None:
    """Remembers the answer beside the effect, in its transaction."""
    statement = update(idempotency_keys).where(
        idempotency_keys.c.project_id == project_id, idempotency_keys.c.key == key
    )
    tx.connection.execute(statement.values(status=status, body=body))


def release(tx: Transaction, project_id: str, key: str) -> None:
    statement = delete(idempotency_keys).where(
        idempotency_keys.c.project_id == project_id, idempotency_keys.c.key == key
    )
    tx.connection.execute(statement)


def delete_one_if_older(tx: Transaction, project_id: str, key: str, age: timedelta) -> None:
    statement = delete(idempotency_keys).where(
        idempotency_keys.c.project_id == project_id,
        idempotency_keys.c.key == key,
        idempotency_keys.c.created_at < func.now() - age,
    )
    tx.connection.execute(statement)
