"""How a child of the stack is described and started: as a program of its own, or forked off a warm interpreter.

Every child leads a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone, and so that what a
child started can be found after it died.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.embedded.layout import rotate_log
from service.embedded.processes import MARK

_ON_LINUX = sys.platform == "linux"
_LAUNCHER = Path(__file__).with_name("launch.py")
_PR_SET_CHILD_SUBREAPER = 36
_FORK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class RunAs:
    """Whom a child runs as: see `launch.py` for the three kinds."""

    kind: str = "self"
    uid: int = -1
    gid: int = -1

    def __str__(self) -> str:
        return self.kind if self.kind == "self" else f"{self.kind}:{self.uid}:{self.gid}"


@dataclass(frozen=True)
class ChildSpec:
    """One process to keep running.

    `argv[0]` is an absolute path. `gated`: for a Python child, what `gate.main` gets when the child is forked off a
    fork server rather than started by `argv`. `environment` is all that the child gets; None means ours. `folder` is
    where it works; None means where we work. `stage` orders the stop: higher stages stop first. `before_start` runs in
    the supervisor before every start, also a restart, and may raise OSError. `ready` says, given the pid, whether the
    child serves; None means as soon as it runs.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    gated: tuple[str, ...] | None = None
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    run_as: RunAs = field(default_factory=RunAs)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    stage: int = 0
    before_start: Callable[[], None] | None = None
    ready: Callable[[int], bool] | None = None
    restart: bool = True


@dataclass(frozen=True)
class Process:
    """A child of ours that was started. `popen` is None for one that was forked off."""

    pid: int
    popen: subprocess.Popen[bytes] | None = None

    def has_ended(self) -> bool:
        """Whether it has ended; it is not reaped, so its pid still belongs to nobody else."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def wait(self) -> int:
        """Reap it; its exit status, negative for the signal that killed it."""
        if self.popen is not None:
            return self.popen.wait()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return 0


class ForkServerGone(Exception):
    """The fork server has ended; start the child by its `argv`."""


class ForkServer:
    """A warm interpreter (`forkserver.py`) that Python children are forked from, so that each spares its imports.

    Linux only. It belongs to the thread that makes it: with it ends the server.
    """

    def __init__(self, spec: ChildSpec, run_folder: Path) -> None:
        """Start it and return at once; it imports meanwhile. Raises OSError when it cannot be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            argv = (*spec.argv, str(theirs.fileno()))
            try:
                self._process = spawn(spec, run_folder, argv, pass_fds=(theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        self._connection = ours
        self._run_folder = run_folder
        self._ready = False

    def is_ready(self) -> bool:
        """Whether it can fork by now. Raises ForkServerGone."""
        try:
            said = self._connection.recv(64, socket.MSG_DONTWAIT | (socket.MSG_PEEK if self._ready else 0))
        except BlockingIOError:
            return self._ready
        except OSError as error:
            raise ForkServerGone from error
        if not said:
            raise ForkServerGone
        self._ready = True
        return True

    def fork(self, spec: ChildSpec) -> Process:
        """Start `spec` as a fork, as `spawn` would start its program. Raises ForkServerGone."""
        assert spec.gated is not None
        rotate_log(spec.log)
        request = {
            "name": spec.name,
            "arguments": spec.gated,
            "log": str(spec.log),
            "environment": _marked(spec, self._run_folder),
            "folder": str(spec.folder or Path.cwd()),
            "parent": os.getpid(),
            "death_signal": int(spec.stop_signal),
        }
        # The fork's own parent ends at once. As the nearest subreaper we inherit the child; only for this moment,
        # because other orphans of this process are none of ours.
        _set_subreaper(True)
        self._connection.settimeout(_FORK_TIMEOUT_S)
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            return Process(int(self._connection.recv(64)))
        except (OSError, ValueError) as error:
            raise ForkServerGone from error
        finally:
            _set_subreaper(False)
            # With a time limit set, Python waits that long even where MSG_DONTWAIT says not to.
            self._connection.settimeout(None)

    def close(self) -> None:
        """End it. What was forked off it lives on."""
        self._connection.close()
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


def fork_server_is_supported() -> bool:
    """Whether children may be forked off a warm interpreter here: on macOS, forks without exec are unsafe."""
    return _ON_LINUX


def command_line(argv: tuple[str, ...], run_as: RunAs, death_signal: int) -> list[str]:
    """`argv`, wrapped so that it ends with the thread that starts it and runs as `run_as`."""
    if not _ON_LINUX:
        return list(argv)
    wrapper = [sys.executable, "-I", "-S", str(_LAUNCHER)]
    return [*wrapper, str(os.getpid()), str(int(death_signal)), str(run_as), "--", *argv]


def spawn(
    spec: ChildSpec, run_folder: Path, argv: tuple[str, ...] | None = None, pass_fds: tuple[int, ...] = ()
) -> Process:
    """Start `spec`, its output appended to its log, its environment marked with the stack's `run_folder`.

    `argv` replaces the spec's own. The calling thread must live as long as the child should. Raises OSError when the
    program cannot be started.
    """
    rotate_log(spec.log)
    switch = not _ON_LINUX and spec.run_as.kind == "switch"
    with spec.log.open("ab") as log:
        popen = subprocess.Popen(
            command_line(argv or spec.argv, spec.run_as, spec.stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_marked(spec, run_folder),
            cwd=spec.folder,
            pass_fds=pass_fds,
            start_new_session=True,
            user=spec.run_as.uid if switch else None,
            group=spec.run_as.gid if switch else None,
            extra_groups=[] if switch else None,
        )
    return Process(popen.pid, popen)


def _marked(spec: ChildSpec, run_folder: Path) -> dict[str, str]:
    environment = os.environ if spec.environment is None else spec.environment
    return {**environment, MARK: str(run_folder.resolve())}


def _set_subreaper(on: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
