"""Connections and transactions. The only place that commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import orjson
import psycopg
import structlog
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from foretune.errors import IdempotencyConflict, Unavailable

_log = structlog.get_logger(__name__)
Doorbell = Callable[[], None]


class Statement(NamedTuple):
    """A statement in psycopg's own words: see `Transaction.rows`."""

    text: bytes
    parameters: Mapping[str, object]


class Transaction:
    """One transaction. What must happen only once it is durable goes to `after_commit`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: tuple[bytes, Mapping[str, object]] | None = None
        self._doorbells: dict[object, Doorbell] = {}

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for everything that is not hot."""
        self._run_last()
        return self._connection

    def after_commit(self, ring: Doorbell, *, once: object = None) -> None:
        """Calls `ring` after the commit. Doorbells with the same `once` ring one time."""
        self._doorbells[once if once is not None else len(self._doorbells)] = ring

    def rows(self, statement: bytes, parameters: Mapping[str, object]) -> list[tuple[object, ...]]:
        """The rows of a statement in psycopg's own words, prepared once a connection.

        For the few statements of the hottest paths: SQLAlchemy's part of a small one takes ten times the driver's.
        """
        return self._driver.execute(statement, parameters, prepare=True, binary=True).fetchall()

    def rows_of(self, *statements: Statement) -> list[list[tuple[object, ...]]]:
        """The rows of each statement, all in one round trip. Each sees what was committed before it began."""
        driver = self._driver
        with driver.pipeline():
            cursors = [driver.execute(text, parameters, prepare=True, binary=True) for text, parameters in statements]
            return [cursor.fetchall() for cursor in cursors]

    def run(self, statement: bytes, parameters: Mapping[str, object]) -> None:
        """`rows` for a statement that gives none."""
        self._driver.execute(statement, parameters, prepare=True)

    def run_last(self, statement: bytes, parameters: Mapping[str, object]) -> None:
        """`run` for what is probably the last statement: it travels with the commit, or before the next statement."""
        self._run_last()
        self._last = statement, parameters

    def commit(self) -> None:
        """For `Database` alone: commits in one round trip with what came last."""
        if self._last is not None:
            driver = self._connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            (statement, parameters), self._last = self._last, None
            with driver.pipeline():
                driver.execute(statement, parameters, prepare=True)
                driver.commit()

    @property
    def _driver(self) -> psycopg.Connection[tuple[object, ...]]:
        driver = self.connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver

    def _run_last(self) -> None:
        if self._last is not None:
            (statement, parameters), self._last = self._last, None
            self.run(statement, parameters)

    def ring(self) -> None:
        # A doorbell that fails loses nothing: the row is there, readers poll and upkeep rings again.
        for doorbell in self._doorbells.values():
            try:
                doorbell()
            except Exception as error:  # noqa: BLE001
                _log.warning("doorbell_failed", error=str(error))


class Database:
    """A pool of connections to Postgres."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            json_serializer=_dump_json,
            json_deserializer=orjson.loads,
            connect_args={"connect_timeout": 5, "application_name": "foretune", "prepare_threshold": 2},
        )
        self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commits when the block ends well, rolls back when it raises; then rings the doorbells.

        Raises Unavailable when Postgres cannot be reached or goes away in the middle, IdempotencyConflict when a
        ledger's answer came second.
        """
        with self._translated(), self.engine.begin() as connection:
            transaction = Transaction(connection)
            yield transaction
            transaction.commit()
        transaction.ring()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Each statement sees its own snapshot, and none waits for a BEGIN or a COMMIT: for a read or two.

        Raises Unavailable when Postgres cannot be reached.
        """
        with self._translated(), self._reader.connect() as connection:
            yield Transaction(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name == "pk_idempotency_keys":
                raise IdempotencyConflict("another call with this Idempotency-Key was answered first") from error
            raise
        except PoolTimeout as error:
            raise Unavailable(
                "all database connections are taken; nothing was written", code="database_busy"
            ) from error
        except (DBAPIError, psycopg.OperationalError) as error:
            if not isinstance(error, DBAPIError) or isinstance(error, OperationalError) or error.connection_invalidated:
                self.engine.dispose(close=False)
                raise Unavailable("the database does not answer; nothing was written", code="database_away") from error
            raise

    def close(self) -> None:
        self.engine.dispose()


def _dump_json(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # Integers beyond 64 bits.
        return json.dumps(value)
