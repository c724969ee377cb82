"""Connections and transactions. The only place that commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import orjson
import psycopg
import structlog
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from foretune.errors import IdempotencyConflict, Unavailable

_log = structlog.get_logger(__name__)
Doorbell = Callable[[], None]


_IDLE_TRANSACTION_S = 15
"""A client that hangs or is cut off in the middle of a transaction holds its locks no longer than this."""
_CONNECT = {
    "connect_timeout": 5,
    "application_name": "foretune",
    "prepare_threshold": 2,
    "options": f"-c idle_in_transaction_session_timeout={_IDLE_TRANSACTION_S}s",
    # Over a network that drops packets, a connection is given up after half a minute, not after a quarter of an hour.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

# As SQLAlchemy's part of the same columns is read.
set_json_loads(orjson.loads)

PsycopgConnection = psycopg.Connection[tuple[object, ...]]


class Statement(NamedTuple):
    """A statement in psycopg's own words: see `Transaction.rows`."""

    text: bytes
    parameters: Mapping[str, object]


class Transaction:
    """One transaction. What must happen only once it is durable goes to `after_commit`."""

    def __init__(self, engine: Engine, pooled: PoolProxiedConnection) -> None:
        self._engine = engine
        self._pooled = pooled
        self._connection: Connection | None = None
        self._last: Statement | None = None
        self._doorbells: dict[object, Doorbell] = {}

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for everything that is not hot."""
        self._run_last()
        if self._connection is None:
            self._connection = Connection(self._engine, self._pooled)
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
        self._last = Statement(statement, parameters)

    def commit(self) -> None:
        """For `Database` alone: commits, in one round trip with what came last."""
        driver, last = driver_of(self._pooled), self._last
        if last is None:
            driver.commit()
            return
        with driver.pipeline():
            driver.execute(last.text, last.parameters, prepare=True)
            driver.commit()

    @property
    def _driver(self) -> PsycopgConnection:
        self._run_last()
        return driver_of(self._pooled)

    def _run_last(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            driver_of(self._pooled).execute(last.text, last.parameters, prepare=True)

    def ring(self) -> None:
        # A doorbell that fails loses nothing: the row is there, readers poll and upkeep rings again.
        for doorbell in self._doorbells.values():
            try:
                doorbell()
            except Exception as error:  # noqa: BLE001
                _log.warning("doorbell_failed", error=str(error))


def driver_of(pooled: PoolProxiedConnection) -> PsycopgConnection:
    """The driver's own connection."""
    driver = pooled.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


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
            connect_args=_CONNECT,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commits when the block ends well, rolls back when it raises; then rings the doorbells.

        Raises Unavailable when Postgres cannot be reached or goes away in the middle, IdempotencyConflict when a
        ledger's answer came second.
        """
        with self._translated(), self._pooled(autocommit=False) as pooled:
            transaction = Transaction(self.engine, pooled)
            try:
                yield transaction
                transaction.commit()
            except BaseException:
                # One that is broken is closed by the pool.
                if pooled.is_valid and not driver_of(pooled).broken:
                    pooled.rollback()
                raise
        transaction.ring()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Each statement sees its own snapshot, and none waits for a BEGIN or a COMMIT: for a read or two.

        Raises Unavailable when Postgres cannot be reached.
        """
        with self._translated(), self._pooled(autocommit=True) as pooled:
            yield Transaction(self.engine, pooled)

    @contextmanager
    def at_once(self) -> Iterator[Transaction]:
        """For one statement that writes all there is to write, and is committed by itself; then rings the doorbells.

        Raises as `transaction` does.
        """
        with self.reading() as transaction:
            yield transaction
        transaction.ring()

    @contextmanager
    def _pooled(self, *, autocommit: bool) -> Iterator[PoolProxiedConnection]:
        pooled = self.engine.raw_connection()
        try:
            driver = driver_of(pooled)
            # It stays as its last user had it: most who read, read again.
            if driver.autocommit != autocommit:
                driver.autocommit = autocommit
            yield pooled
        finally:
            pooled.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name == "pk_idempotency_keys":
                raise IdempotencyConflict("another call with this Idempotency-Key was answered first") from error
            raise
        except psycopg.errors.IdleInTransactionSessionTimeout as error:
            # This process stood still in the middle of a transaction, and Postgres rolled it back.
            raise Unavailable("the transaction took too long; nothing was written", code="database_away") from error
        except PoolTimeout as error:
            raise Unavailable(
                "all database connections are taken; nothing was written", code="database_busy"
            ) from error
        except (DBAPIError, psycopg.OperationalError) as error:
            if _is_away(error):
                self.engine.dispose(close=False)
                raise Unavailable("the database does not answer; nothing was written", code="database_away") from error
            raise

    def close(self) -> None:
        self.engine.dispose()


def _is_away(error: DBAPIError | psycopg.OperationalError) -> bool:
    """Whether the connection is at fault, not the statement."""
    if not isinstance(error, DBAPIError) or isinstance(error, OperationalError) or error.connection_invalidated:
        return True
    return isinstance(error.orig, psycopg.errors.IdleInTransactionSessionTimeout)


def _dump_json(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # Integers beyond 64 bits.
        return json.dumps(value)
