"""What a worker process holds for all its tasks: database, bus, artifacts, and its own name."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import gettempdir

from foretune.allocator import keep_freed_memory
from foretune.ids import new_id
from service.artifacts import ArtifactStore
from service.bus import Bus
from service.db.session import Database
from service.settings import settings

_DRAIN_FILE = "FORETUNE_DRAIN_FILE"


@dataclass(frozen=True)
class WorkerProcess:
    """Made once a process, after the fork."""

    id: str
    database: Database
    bus: Bus
    artifacts: ArtifactStore
    stopping: threading.Event = field(default_factory=threading.Event)

    def draining(self) -> bool:
        """Whether this worker was asked to stop: finish the epoch, keep a checkpoint, hand back."""
        return self.stopping.is_set() or Path(os.environ.get(_DRAIN_FILE, "/nonexistent")).exists()


@lru_cache(maxsize=1)
def this_process() -> WorkerProcess:
    keep_freed_memory()
    config = settings()
    return WorkerProcess(
        id=f"{new_id('wrk')}@{socket.gethostname()}",
        database=Database(config.database_url, pool_size=4),
        bus=Bus(config.redis_url),
        artifacts=ArtifactStore(config.artifacts_url),
    )


def name_drain_file() -> None:
    """Chooses the file by which a worker's main process tells its pool to hand back. Called before the pool starts."""
    path = Path(gettempdir()) / f"foretune-drain-{os.getpid()}"
    path.unlink(missing_ok=True)
    os.environ[_DRAIN_FILE] = str(path)


def ask_to_drain() -> None:
    """In the main process: asks the pool to hand back at the next epoch."""
    Path(os.environ[_DRAIN_FILE]).touch()


def forget_drain_file() -> None:
    Path(os.environ[_DRAIN_FILE]).unlink(missing_ok=True)


def die_with_parent() -> None:
    """On Linux, the kernel kills this process when its parent dies; elsewhere the lease takes care of it."""
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
