"""Postgres and the Redis-protocol server alone, for tests, benchmarks and commands that need no API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.embedded import postgres, redis
from service.embedded.layout import Layout
from service.embedded.processes import end_leftovers
from service.embedded.supervisor import Supervisor

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Servers:
    """Two running servers: `database_url` for SQLAlchemy, `redis_url` for redis-py."""

    database_url: str
    redis_url: str
    layout: Layout
    supervisor: Supervisor

    def stop(self, *names: str) -> None:
        """Stop `postgres` or `redis`, or both when none is named."""
        self.supervisor.stop(*(names or ("redis", "postgres")))

    def start(self, *names: str) -> None:
        """Start `postgres` or `redis` again, or both, and wait until they answer."""
        chosen = names or ("postgres", "redis")
        self.supervisor.resume(*chosen)
        self.supervisor.wait_ready(*chosen, timeout_s=_START_TIMEOUT_S)

    def pid(self, name: str) -> int | None:
        """The pid of `postgres` or `redis`, or None while it does not run."""
        return self.supervisor.pid(name)


@contextmanager
def embedded_servers(folder: Path) -> Iterator[Servers]:
    """Both servers in `folder` (made when missing), stopped at the end; a server that dies is started again.

    Raises `StackError` when the folder is in use, the wheels are missing or a server does not start.
    """
    layout = Layout.of(folder)
    layout.create()
    with layout.locked():
        end_leftovers(layout.run)
        supervisor = Supervisor(layout.run)
        try:
            supervisor.start(redis.server_spec(layout))
            cluster = postgres.locate_cluster(layout)
            postgres.prepare_cluster(cluster, layout)
            supervisor.start(postgres.server_spec(cluster))
            postgres.sync_cluster(cluster)
            supervisor.wait_ready("postgres", "redis", timeout_s=_START_TIMEOUT_S)
            yield Servers(cluster.database_url, redis.redis_url(layout), layout, supervisor)
        finally:
            supervisor.close()
