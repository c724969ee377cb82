"""Whether every part answers."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta

import redis

from foretune.errors import ForetuneError
from foretune.wire.service import Readiness
from service.bus import Bus
from service.db import health as health_rows
from service.db.migrate import head, refuse_unknown
from service.db.session import Database

WORKER_SEEN = timedelta(seconds=10)
_PATIENCE_S = 3.0
_OK = "ok"
_PARTS = ("database", "broker", "workers", "networks", "datasets")


_UNKNOWN = dict.fromkeys(("workers", "networks", "datasets"), "unknown")


class Readings:
    """Asks the parts in threads of its own: a part that hangs is reported, and blocks nobody else."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database, self._bus = database, bus
        self._threads = ThreadPoolExecutor(4, "readiness")

    def readiness(self) -> Readiness:
        """Every part with "ok" or what is wrong with it."""
        database = self._threads.submit(self._ask_database)
        broker = self._threads.submit(self._ask_broker)
        parts = {**_result(database, dict.fromkeys(("database", *_UNKNOWN), "the database is away"))}
        parts |= _result(broker, {"broker": f"does not answer within {_PATIENCE_S:g} s"})
        return Readiness(ready=all(parts[part] == _OK for part in _PARTS), parts={part: parts[part] for part in _PARTS})

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask_database(self) -> dict[str, str]:
        try:
            with self._database.transaction() as tx:
                revision = health_rows.revision(tx)
                refuse_unknown(revision)
                if revision != head():
                    behind = f"at revision {revision or 'none'}, needs {head()}: run `python -m service.db.migrate`"
                    return {"database": behind, **_UNKNOWN}
                kinds = health_rows.live_workers(tx, WORKER_SEEN)
                networks = health_rows.networks_published(tx)
                builtins = health_rows.builtin_datasets_published(tx)
        except ForetuneError as error:
            return {"database": error.message, **_UNKNOWN}
        seconds = WORKER_SEEN.total_seconds()
        return {
            "database": _OK,
            "workers": _OK if kinds else f"none was seen in the last {seconds:g} s",
            "networks": _OK if networks else "no train worker has published what it can train",
            "datasets": _OK if builtins else "no desk worker has published the built-in data sets",
        }

    def _ask_broker(self) -> dict[str, str]:
        try:
            self._bus.ping()
        except (redis.RedisError, OSError) as error:
            return {"broker": f"does not answer: {error}"}
        return {"broker": _OK}


def _result(asked: Future[dict[str, str]], otherwise: dict[str, str]) -> dict[str, str]:
    try:
        return asked.result(timeout=_PATIENCE_S)
    except FutureTimeout:
        return otherwise
