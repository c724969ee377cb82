"""Fits run in a process of their own: whoever asks a desk worker for a proposal must not wait for one."""

from __future__ import annotations

import subprocess
import sys
import threading

from service.usecases import fitting
from workers.process import WorkerProcess

_POLL_S = 0.2
_busy = threading.Lock()


def fit_apart(process: WorkerProcess, project: str) -> None:
    """Goes on with the project's fit, if one waits, and waits for the process. One at a time: the threads of a desk
    worker have more to do, and upkeep rings again for what nobody took.
    """
    with process.database.reading() as tx:
        waiting = fitting.waits(tx, project)
    if not waiting or not _busy.acquire(blocking=False):
        return
    try:
        with subprocess.Popen([sys.executable, "-m", "workers.fitting", project]) as child:  # noqa: S603
            while child.poll() is None:
                if process.draining():
                    child.terminate()
                try:
                    child.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        _busy.release()
