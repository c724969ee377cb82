"""Whether the servers that DATABASE_URL, REDIS_URL and ARTIFACTS_URL name can be used, as an API or a worker would.

A look gives None, or what is wrong. Passwords stand in no answer.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import redis

from foretune.errors import ForetuneError
from service.artifacts import ArtifactStore, local_folder
from service.bus import ping
from service.db import migrate
from service.db.session import Database

_PATIENCE_S = 3.0


def database(url: str) -> str | None:
    """Postgres answers, and has the schema that this code needs."""
    try:
        Database(url, pool_size=1).close()
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and whatever driver the address names
        said = _without_secrets(str(error), url)
        return f"{_shown(url)} is no address of Postgres as postgresql+psycopg://user:password@host/name: {said}"
    try:
        migrate.check(url, tries=1)
    except ForetuneError as error:
        return f"{_shown(url)}: {_without_secrets(error.message, url)}"
    return None


def broker(url: str) -> str | None:
    """A Redis-protocol server answers."""
    try:
        ping(url, _PATIENCE_S)
    except (redis.RedisError, OSError, ValueError) as error:
        return f"{_shown(url)} does not answer: {_without_secrets(str(error), url)}"
    return None


def artifacts(url: str) -> str | None:
    """What is written can be read again, and goes again. A folder that a start would make is only judged."""
    key = f"doctor/{secrets.token_hex(8)}"
    try:
        folder = local_folder(url)
        if folder is not None and not folder.is_dir():
            return _unmakeable(folder)
        store = ArtifactStore(url)
        store.put_bytes(key, b"written by foretune doctor")
        same = store.read_bytes(key) == b"written by foretune doctor"
        store.delete(key)
    except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
        said = error.message if isinstance(error, ForetuneError) else str(error)
        return f"{_shown(url)}: {_without_secrets(said, url)}"
    return None if same else f"{_shown(url)}: what was written reads otherwise"


LOOKS: Mapping[str, Callable[[str], str | None]] = {
    "DATABASE_URL": database,
    "REDIS_URL": broker,
    "ARTIFACTS_URL": artifacts,
}
GOOD: Mapping[str, str] = {
    "DATABASE_URL": "the database answers, and its schema is current",
    "REDIS_URL": "a Redis-protocol server answers",
    "ARTIFACTS_URL": "artifacts can be written and read",
}


def _unmakeable(folder: Path) -> str | None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return f"{folder} cannot be made: {existing} is not writable"
    return None


def _shown(url: str) -> str:
    return _without_secrets(url, url) or "an empty text"


def _without_secrets(text: str, url: str) -> str:
    """The first line of `text`, without the password of `url`."""
    line = text.partition("\n")[0]
    try:
        password = urlsplit(url).password
    except ValueError:
        return line.replace(url, "that address") if url else line
    return line.replace(f":{password}@", ":***@") if password else line
