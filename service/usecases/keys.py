"""Keys and projects: who may call. A key is `ft_` and 43 random URL-safe characters; only its SHA-256 is stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foretune.errors import Conflict, NotFound, Unauthenticated
from foretune.ids import new_id
from foretune.wire.base import Page
from foretune.wire.service import Key, KeyRequest, NewKey
from service.db import keys as key_rows
from service.db.keys import StoredKey, StoredProject
from service.db.session import Database, Transaction
from service.usecases.paging import read_moment, write_cursor

LOCAL_PROJECT = "default"
_KEY_LENGTH = 46
_PREFIX_LENGTH = 10
_TOUCH_AFTER = timedelta(minutes=1)


@dataclass(frozen=True)
class Caller:
    """Whoever a valid key stands for."""

    project: str
    """The project's id."""
    key_id: str
    expires_at: datetime | None


def authenticate(tx: Transaction, presented: str) -> Caller:
    """The caller behind a key. Raises Unauthenticated for a key that is unknown, revoked or expired."""
    digest = _digest(presented)
    key = key_rows.find_by_digest(tx, digest)
    # One comparison in constant time; the index was searched for a hash, whose prefix nobody can choose.
    if key is None or not hmac.compare_digest(key.digest, digest):
        raise Unauthenticated("this key is not known here: send `Authorization: Bearer KEY` with a valid one")
    now = datetime.now(UTC)
    if key.revoked_at is not None:
        raise Unauthenticated(f"the key {key.prefix}… was revoked", code="key_revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated(f"the key {key.prefix}… expired at {key.expires_at.isoformat()}", code="key_expired")
    if key.last_used_at is None or now - key.last_used_at > _TOUCH_AFTER:
        key_rows.touch(tx, key.id)
    return Caller(key.project_id, key.id, key.expires_at)


def create_project(tx: Transaction, name: str) -> StoredProject:
    """The project of that name; made when there is none."""
    return key_rows.add_project(tx, new_id("prj"), name)


def find_project(tx: Transaction, name: str) -> StoredProject:
    """Raises NotFound, with the names that there are."""
    found = key_rows.find_project(tx, name)
    if found is None:
        known = ", ".join(project.name for project in key_rows.list_projects(tx)) or "none yet"
        raise NotFound(f"there is no project {name!r}; there are: {known}")
    return found


def create_key(tx: Transaction, project: str, request: KeyRequest) -> NewKey:
    """A new key for the project with this id. The answer is the only place where the key itself appears."""
    key = f"ft_{secrets.token_urlsafe(32)}"
    expires_at = None
    if request.expires_in_days is not None:
        expires_at = datetime.now(UTC) + timedelta(days=request.expires_in_days)
    stored = key_rows.add_key(
        tx,
        key_id=new_id("key"),
        project_id=project,
        name=request.name,
        prefix=key[:_PREFIX_LENGTH],
        digest=_digest(key),
        expires_at=expires_at,
    )
    return NewKey(**_to_wire(stored).model_dump(), key=key)


def list_page(tx: Transaction, project: str, *, limit: int, cursor: str | None) -> Page[Key]:
    """The keys of a project, the newest first. Raises InvalidRequest for a cursor that no page gave."""
    found = key_rows.list_keys(tx, project, before=read_moment(cursor, "key_"), limit=limit + 1)
    items = [_to_wire(key) for key in found[:limit]]
    more = len(found) > limit
    return Page(items=items, next=write_cursor((items[-1].created_at, items[-1].id)) if more else None)


def revoke_key(tx: Transaction, project: str, key_id: str, *, used_now: str | None = None) -> None:
    """Revokes a key at once; doing it twice is harmless.

    `used_now` is the key of this very call, which cannot revoke itself: nobody locks themselves out by mistake.
    Raises NotFound, Conflict.
    """
    if key_rows.find_key(tx, project, key_id) is None:
        raise NotFound(f"there is no key {key_id!r}")
    if key_id == used_now:
        raise Conflict(f"{key_id!r} is the key of this call; revoke it with another one", code="key_in_use")
    key_rows.revoke(tx, key_id)


def ensure_local_key(database_url: str, path: Path) -> str:
    """The key in the file at `path`; made for the project `default`, and the file written (0600), unless it works.

    Raises Unavailable when the database does not answer, OSError when the file cannot be written.
    """
    database = Database(database_url, pool_size=1)
    try:
        with database.transaction() as tx:
            present = _read_key(path)
            if present is not None:
                try:
                    authenticate(tx, present)
                except Unauthenticated:
                    pass
                else:
                    return present
            project = create_project(tx, LOCAL_PROJECT)
            key = create_key(tx, project.id, KeyRequest(name="local")).key
    finally:
        database.close()
    _write_private(path, key)
    return key


def _to_wire(key: StoredKey) -> Key:
    return Key(
        id=key.id,
        name=key.name,
        project=key.project_name,
        prefix=key.prefix,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _read_key(path: Path) -> str | None:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return key if key.startswith("ft_") and len(key) == _KEY_LENGTH else None


def _write_private(path: Path, key: str) -> None:
    """At once: whoever reads sees the old file or the new one, and nobody else may."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{key}\n")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
