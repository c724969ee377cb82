"""The schema: which revision the database has, and bringing it up to this code's.

    python -m service.db.migrate          upgrade the database that DATABASE_URL names

When the schema is current that costs one SELECT: neither Alembic nor SQLAlchemy is imported.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

import migrations
from foretune.errors import ForetuneError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(migrations.__file__).parent
_CONNECT_TRIES = 20
_CONNECT_PAUSE_S = 0.5
_POLL_S = 0.05
_WARN_AFTER_S = 10.0


class SchemaTooNew(ForetuneError):
    """The database was migrated by a newer Foretune; upgrade this one, or restore a backup from before."""

    code = "schema_too_new"


class SchemaBehind(ForetuneError):
    """The database lacks migrations: run `python -m service.db.migrate`."""

    code = "schema_behind"


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """The revisions of this code, oldest first: files are called NNNN_what.py, and NNNN is the revision."""
    return tuple(sorted(path.name.split("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*_*.py")))


def head() -> str:
    """The revision that this code needs."""
    return known_revisions()[-1]


def upgrade(database_url: str) -> None:
    """Brings the schema up to `head()`; does nothing when it is there.

    Safe to run from several processes at once. Waits up to ten seconds for a server that is still starting.
    Raises SchemaTooNew for a revision that this code does not know, Unavailable when Postgres does not answer.
    """
    if _is_current(_revision(database_url)):
        return
    from alembic import command
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(database_url: str, *, tries: int = _CONNECT_TRIES) -> None:
    """Raises SchemaBehind, SchemaTooNew or Unavailable unless the schema is the one that this code needs."""
    revision = _revision(database_url, tries)
    if not _is_current(revision):
        raise SchemaBehind(
            f"the database is at revision {revision or 'none'} and this code needs {head()}: "
            "run `python -m service.db.migrate`"
        )


def wait_until_current(database_url: str, warn: Callable[[str], None]) -> None:
    """Returns once the schema is the one that this code needs: whoever migrates may still be at it.

    `warn` is told once what is waited for, after ten seconds. Raises SchemaTooNew.
    """
    warn_at = time.monotonic() + _WARN_AFTER_S
    while True:
        try:
            check(database_url, tries=1)
            return
        except (SchemaBehind, Unavailable) as error:
            if time.monotonic() >= warn_at:
                warn(error.message)
                warn_at = math.inf
        time.sleep(_POLL_S)


def alembic_config() -> Config:
    """Alembic's configuration, without a file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def refuse_unknown(revision: str | None) -> None:
    """Raises SchemaTooNew for a revision that this code does not know."""
    if revision is not None and revision not in known_revisions():
        raise SchemaTooNew(
            f"the database is at schema revision {revision}, which this version of Foretune does not know "
            f"(its newest is {head()}): a newer Foretune has used it; upgrade Foretune, or restore a backup from before"
        )


def _is_current(revision: str | None) -> bool:
    refuse_unknown(revision)
    return revision == head()


def _revision(database_url: str, tries: int = _CONNECT_TRIES) -> str | None:
    """The revision of the database, None when it was never migrated."""
    with _connect(database_url, tries) as connection:
        row = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
        if row is None or not row[0]:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def _connect(database_url: str, tries: int) -> psycopg.Connection[tuple[object, ...]]:
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    for remaining in reversed(range(tries)):
        try:
            return psycopg.connect(conninfo, connect_timeout=5, autocommit=True)
        except psycopg.OperationalError as error:
            if not remaining:
                raise Unavailable(f"the database does not answer: {error}", code="database_away") from error
            time.sleep(_CONNECT_PAUSE_S)
    raise AssertionError("unreachable")


def main() -> int:
    """The command; prints one line, and says what is wrong in one line."""
    from service.settings import settings

    try:
        upgrade(settings().database_url)
    except ForetuneError as error:
        sys.stderr.write(f"error ({error.code}): {error.message}\n")
        return 1
    sys.stdout.write(f"the database is at revision {head()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
