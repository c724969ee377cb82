"""Projects and their keys. A key is stored as its SHA-256; the key itself is seen once, when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from service.db.session import Transaction
from service.db.tables import api_keys, projects


@dataclass(frozen=True)
class StoredProject:
    id: str
    name: str


@dataclass(frozen=True)
class StoredKey:
    """A key without its secret part."""

    id: str
    project_id: str
    project_name: str
    name: str
    prefix: str
    digest: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


_KEY = select(
    api_keys.c.id,
    api_keys.c.project_id,
    projects.c.name.label("project_name"),
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.digest,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.revoked_at,
    api_keys.c.last_used_at,
).join(projects, projects.c.id == api_keys.c.project_id)


def add_project(tx: Transaction, project_id: str, name: str) -> StoredProject:
    """The project of that name, made when there is none."""
    tx.connection.execute(upsert(projects).values(id=project_id, name=name).on_conflict_do_nothing())
    row = tx.connection.execute(select(projects.c.id, projects.c.name).where(projects.c.name == name)).one()
    return StoredProject(row.id, row.name)


def find_project(tx: Transaction, name: str) -> StoredProject | None:
    row = tx.connection.execute(select(projects.c.id, projects.c.name).where(projects.c.name == name)).one_or_none()
    return StoredProject(row.id, row.name) if row else None


def list_projects(tx: Transaction) -> list[StoredProject]:
    rows = tx.connection.execute(select(projects.c.id, projects.c.name).order_by(projects.c.name))
    return [StoredProject(row.id, row.name) for row in rows]


def add_key(
    tx: Transaction, *, key_id: str, project_id: str, name: str, prefix: str, digest: str, expires_at: datetime | None
) -> StoredKey:
    values = {
        "id": key_id,
        "project_id": project_id,
        "name": name,
        "prefix": prefix,
        "digest": digest,
        "expires_at": expires_at,
    }
    tx.connection.execute(insert(api_keys).values(values))
    return _from_row(tx.connection.execute(_KEY.where(api_keys.c.id == key_id)).mappings().one())


def find_by_digest(tx: Transaction, digest: str) -> StoredKey | None:
    row = tx.connection.execute(_KEY.where(api_keys.c.digest == digest)).mappings().one_or_none()
    return _from_row(row) if row else None


def find_key(tx: Transaction, project_id: str, key_id: str) -> StoredKey | None:
    query = _KEY.where(api_keys.c.id == key_id, api_keys.c.project_id == project_id)
    row = tx.connection.execute(query).mappings().one_or_none()
    return _from_row(row) if row else None


def list_keys(tx: Transaction, project_id: str, *, before: tuple[datetime, str] | None, limit: int) -> list[StoredKey]:
    """The newest first; `before` is the last one of the page before."""
    query = _KEY.where(api_keys.c.project_id == project_id)
    if before is not None:
        query = query.where(tuple_(api_keys.c.created_at, api_keys.c.id) < before)
    query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()).limit(limit)
    return [_from_row(row) for row in tx.connection.execute(query).mappings()]


def revoke(tx: Transaction, key_id: str) -> None:
    statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    tx.connection.execute(statement.values(revoked_at=func.now()))


def touch(tx: Transaction, key_id: str) -> None:
    """Remembers that the key was used now."""
    tx.connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=func.now()))


def _from_row(row: RowMapping) -> StoredKey:
    return StoredKey(**row)
