"""A connection of its own that waits for what comes to a list.

With redis-py's client a `take` that waits could not be ended: closed under it, the client connects and waits again.
Here is one command on one connection, opened anew by the next `take` when it broke. The client's layers would cost as
much again as the rest of a take: they are many, and out of the cache each time (docs/LOG.md).
"""

from __future__ import annotations

import redis
from redis.connection import ConnectionInterface

_GRACE_S = 5.0
"""How much longer than it was told to Redis may take to say that nothing came."""


class ListReader:
    """Takes what lies on one list, the oldest first. For one thread at a time."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._pool = client.connection_pool
        self._key = key
        self._connection: ConnectionInterface | None = None

    def take(self, wait_s: float, most: int) -> list[bytes]:
        """Up to `most` entries, as soon as there is one; none when none comes within `wait_s`.

        Raises redis.RedisError.
        """
        connection = self._connection
        try:
            if connection is None:
                connection = self._connection = self._pool.make_connection()
                connection.connect()  # type: ignore[no-untyped-call]
            # A health check would wait for an answer of its own.
            command = ("BLMPOP", wait_s, 1, self._key, "LEFT", "COUNT", most)
            connection.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
            taken = connection.read_response(timeout=wait_s + _GRACE_S)
        except (redis.RedisError, OSError):
            self.close()
            raise
        return [] if taken is None else list(taken[1])

    def close(self) -> None:
        """Closes the connection, also under a `take` of another thread, which then raises; `take` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # type: ignore[no-untyped-call]
