"""Processes of a local stack: how one is recognised again, and ended with all it started.

A pid alone identifies nothing: pids are used again. An `Identity` is the pid with the moment it started (and the boot
it started in), which no two processes share.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.embedded.layout import write_private

_ON_LINUX = sys.platform == "linux"
MARK = "FORETUNE_RUN_FOLDER"  # in the environment of every child: the stack that it belongs to


@dataclass(frozen=True)
class Identity:
    """One process, told apart from a later one with the same pid. `stop_signal` is how it is asked to end."""

    pid: int
    started: str
    stop_signal: int = signal.SIGTERM


def identify(pid: int, stop_signal: int = signal.SIGTERM) -> Identity | None:
    """The living process `pid`, or None when there is none (one that waits to be reaped does not live)."""
    started = _started_linux(pid) if _ON_LINUX else _started_elsewhere(pid)
    return None if started is None else Identity(pid, started, int(stop_signal))


def is_alive(identity: Identity) -> bool:
    """Whether that very process still lives."""
    return identify(identity.pid, identity.stop_signal) == identity


def session_members(session: int) -> list[int]:
    """The pids that live in `session`, on Linux; elsewhere an empty list."""
    if not _ON_LINUX:
        return []
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields is not None and int(fields[3]) == session:
                members.append(int(entry.name))
    return members


def kill_session(leader: int) -> None:
    """SIGKILL `leader`'s process group and whatever else lives in its session."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(leader, signal.SIGKILL)
    for pid in session_members(leader):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def write_pid_file(path: Path, identity: Identity) -> None:
    """Remember a child, so that a later start can recognise it."""
    record = {"pid": identity.pid, "started": identity.started, "stop_signal": identity.stop_signal}
    write_private(path, json.dumps(record) + "\n")


def read_pid_file(path: Path) -> Identity | None:
    """The process that `path` speaks of, alive or not; None when the file is missing or unreadable."""
    try:
        record = json.loads(path.read_text())
        return Identity(int(record["pid"]), str(record["started"]), int(record["stop_signal"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def end_leftovers(run_folder: Path, timeout_s: float = 10.0) -> list[str]:
    """End the children that an earlier, killed supervisor left behind, and remove their pid files.

    The caller holds the folder's lock, so no live supervisor owns them. Returns one sentence a stale file. A
    pid that now belongs to another program is left alone.
    """
    found: dict[Path, Identity | None] = {path: read_pid_file(path) for path in sorted(run_folder.glob("*.pid"))}
    living = [identity for identity in found.values() if identity is not None and is_alive(identity)]
    for process in living:
        with suppress(ProcessLookupError):
            os.kill(process.pid, process.stop_signal)
    killed = _wait_or_kill(living, timeout_s)
    sentences = []
    for path, identity in found.items():
        if identity is not None and identify(identity.pid) is None:
            _kill_orphans(identity.pid, run_folder)
        path.unlink(missing_ok=True)
        sentences.append(_describe_leftover(path, identity, living, killed))
    return sentences


def log_tail(path: Path, lines: int = 8, from_byte: int = 0) -> str:
    """The last `lines` lines of a log, of what was written after `from_byte`; "" when there are none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(from_byte if from_byte <= size else 0, size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _kill_orphans(session: int, run_folder: Path) -> None:
    """SIGKILL what a dead leader left in its session. Another program may have used the number since: look at
    the mark.
    """
    mark = os.fsencode(f"{MARK}={run_folder.resolve()}")
    for pid in session_members(session):
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)


def _wait_or_kill(identities: Iterable[Identity], timeout_s: float) -> set[Identity]:
    """Wait for all to end; SIGKILL those that have not after `timeout_s`. Returns the killed."""
    deadline = time.monotonic() + timeout_s
    pending = {identity for identity in identities if is_alive(identity)}
    while pending and time.monotonic() < deadline:
        time.sleep(0.02)
        pending = {identity for identity in pending if is_alive(identity)}
    for identity in pending:
        kill_session(identity.pid)
    while any(is_alive(identity) for identity in pending) and time.monotonic() < deadline + timeout_s:
        time.sleep(0.02)
    return pending


def _describe_leftover(path: Path, identity: Identity | None, living: list[Identity], killed: set[Identity]) -> str:
    if identity is None:
        return f"removed unreadable {path.name}"
    if identity in killed:
        return f"killed {path.stem} (pid {identity.pid}), left behind by a stack that was killed"
    if identity in living:
        return f"stopped {path.stem} (pid {identity.pid}), left behind by a stack that was killed"
    return f"removed stale {path.name} (pid {identity.pid} is gone)"


def _stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on (field 3 of proc(5) is index 0): the name may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _started_linux(pid: int) -> str | None:
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"


def _started_elsewhere(pid: int) -> str | None:
    answer = subprocess.run(
        ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return None if not answer or answer.startswith("Z") else answer.partition(" ")[2].strip()
