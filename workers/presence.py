"""A worker's signs of life, and what it publishes when it starts."""

from __future__ import annotations

import os
import socket
import threading
from typing import Literal

import structlog

from foretune.errors import ForetuneError
from service.db import workers as worker_rows
from workers.process import WorkerProcess

_SEEN_EVERY_S = 2.0

_log = structlog.get_logger(__name__)


def keep_signing(process: WorkerProcess, kind: Literal["train", "desk"], device: str | None) -> None:
    """Signs in now and from a daemon thread, until the process stops."""

    def sign() -> None:
        try:
            with process.database.transaction() as tx:
                worker_rows.seen(tx, process.id, kind=kind, host=socket.gethostname(), pid=os.getpid(), device=device)
        except ForetuneError as error:
            _log.warning("sign_of_life_failed", error=error.message)

    def run() -> None:
        while not process.stopping.wait(_SEEN_EVERY_S):
            sign()

    sign()
    threading.Thread(target=run, name="signs-of-life", daemon=True).start()


def sign_off(process: WorkerProcess) -> None:
    """Says that this worker is gone, so that nobody waits for it."""
    process.stopping.set()
    try:
        with process.database.transaction() as tx:
            worker_rows.gone(tx, process.id)
    except ForetuneError as error:
        _log.warning("sign_off_failed", error=error.message)
