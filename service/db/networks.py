"""What the workers can train, as they last published it."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from foretune.json_types import JsonObject
from service.db.session import Transaction
from service.db.tables import networks


def publish(tx: Transaction, descriptions: Mapping[str, JsonObject]) -> None:
    """Adds or replaces the networks with these names."""
    # Sorted, so that two workers that start together never wait for each other's rows.
    for name in sorted(descriptions):
        statement = upsert(networks).values(name=name, description=descriptions[name])
        changed = {"description": statement.excluded.description, "updated_at": func.now()}
        tx.connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def descriptions(tx: Transaction, *, skip: int = 0, limit: int | None = None) -> list[JsonObject]:
    """By name. There are a handful of networks, so that an offset costs nothing."""
    query = select(networks.c.description).order_by(networks.c.name).offset(skip).limit(limit)
    return list(tx.connection.execute(query).scalars())


def find(tx: Transaction, name: str) -> JsonObject | None:
    query = select(networks.c.description).where(networks.c.name == name)
    return tx.connection.execute(query).scalar_one_or_none()


def any_published(tx: Transaction) -> bool:
    return tx.connection.execute(select(networks.c.name).limit(1)).scalar() is not None
