"""Keeps a shift's leases alive from a thread of its own, however long an epoch takes."""

from __future__ import annotations

import threading
from types import TracebackType

import structlog

from foretune.errors import ForetuneError
from service.settings import settings
from service.usecases import shifts
from workers.process import WorkerProcess

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Use as a context manager around the shift."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._every_s = settings().foretune_worker_lease_s / 4
        self._lock = threading.Lock()
        self._leases: dict[str, int] = {}
        self._lost: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def hold(self, trial_id: str, attempts: int) -> None:
        with self._lock:
            self._leases[trial_id] = attempts

    def drop(self, trial_id: str) -> None:
        with self._lock:
            self._leases.pop(trial_id, None)
            self._lost.discard(trial_id)

    def lost(self) -> set[str]:
        """The trials that somebody else holds by now."""
        with self._lock:
            return set(self._lost)

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            with self._lock:
                leases = dict(self._leases)
            if not leases:
                continue
            try:
                with self._process.database.transaction() as tx:
                    held = shifts.extend(tx, leases)
            except ForetuneError as error:
                _log.warning("heartbeat_failed", error=error.message)
                continue
            with self._lock:
                # Only those still held here: a trial may have ended in the meantime, or have come back.
                gone = leases.items() & self._leases.items()
                self._lost |= {trial_id for trial_id, _ in gone if trial_id not in held}
