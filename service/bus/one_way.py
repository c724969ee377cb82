"""Commands whose answers nobody needs."""

from __future__ import annotations

import threading
import time
from typing import TypeAlias

import redis
from redis.connection import ConnectionInterface

_AFTER_FAILURE_S = 0.5
Command: TypeAlias = tuple[str | bytes | int, ...]


class OneWay:
    """A connection on which Redis answers nothing: a command is one send, and waits for nobody.

    What is sent as the connection breaks is lost, which is what the bus promises of everything. Thread-safe.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: ConnectionInterface | None = None
        self._lock = threading.Lock()
        self._not_before = 0.0

    @property
    def ready(self) -> bool:
        """Whether `send` would go out at once; otherwise it connects first."""
        return self._connection is not None

    def send(self, *commands: Command) -> None:
        """Sends them together. Raises redis.RedisError when Redis is away."""
        with self._lock:
            connection = self._open()
            try:
                # A health check would wait for an answer.
                packed = connection.pack_commands(commands)  # type: ignore[no-untyped-call]
                connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
            except (redis.RedisError, OSError):
                self._close()
                raise

    def close(self) -> None:
        """Closes the connection; `send` opens it again."""
        with self._lock:
            self._close()

    def _open(self) -> ConnectionInterface:
        if self._connection is not None and not _is_closed(self._connection):
            return self._connection
        self._close()
        if time.monotonic() < self._not_before:
            # Others wait for the lock: they must not wait for one attempt after another.
            raise redis.ConnectionError("Redis was away a moment ago")
        connection = self._pool.make_connection()
        try:
            connection.connect()  # type: ignore[no-untyped-call]
            connection.send_command("CLIENT", "REPLY", "OFF", check_health=False)  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError):
            self._not_before = time.monotonic() + _AFTER_FAILURE_S
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        self._connection = connection
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # type: ignore[no-untyped-call]


def _is_closed(connection: ConnectionInterface) -> bool:
    """Redis says nothing here: what can be read is the end."""
    try:
        return bool(connection.can_read(0))
    except (redis.RedisError, OSError):
        return True
