"""A warm interpreter: it imports once what all Python processes of a stack share, and forks them off.

    python -m service.embedded.forkserver IMPORT,IMPORT,... SOCKET_FD

Linux only. It stays single-threaded, answers `ready` when it has imported, then one JSON line with a pid for each JSON
line that asks for a child (`spawning.ForkServer` asks). The child's parent is the supervisor, not this process: it is
forked twice, and the supervisor inherits it. So it is watched, ended and reaped like any other child.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TypedDict

from service.embedded import gate, launch

_PR_SET_NAME = 15
_ADOPTED_WITHIN_S = 10.0


class Request(TypedDict):
    """One child: `arguments` are those of `gate.main`, `parent` is the pid of the supervisor."""

    name: str
    arguments: list[str]
    log: str
    environment: dict[str, str]
    folder: str
    parent: int
    death_signal: int


def serve(connection: socket.socket) -> Request | None:
    """Fork what is asked for until the other end closes. Returns in each child with its request, at last with None."""
    with connection, connection.makefile("rwb") as stream:
        stream.write(b"ready\n")
        stream.flush()
        for line in stream:
            request: Request = json.loads(line)
            pid = _fork_orphan()
            if pid == 0:
                return request
            stream.write(f"{pid or 'cannot fork'}\n".encode())
            stream.flush()
    return None


def become(request: Request) -> None:
    """In the child: take its log, environment and folder, tie its life to the supervisor's, and run its module."""
    with Path(os.devnull).open("rb") as nothing, Path(request["log"]).open("ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    libc = ctypes.CDLL(None, use_errno=True)
    # All forks have this program's command line; `ps -o comm` tells them apart.
    libc.prctl(_PR_SET_NAME, f"ft-{request['name']}".encode()[:15], 0, 0, 0)
    deadline = time.monotonic() + _ADOPTED_WITHIN_S
    while os.getppid() != request["parent"] and time.monotonic() < deadline:
        time.sleep(0.001)
    launch.end_with_parent(libc, request["parent"], request["death_signal"])
    gate.main(request["arguments"])


def main(arguments: list[str]) -> None:
    """Import, then serve; see the module's docstring for `arguments`."""
    imports, descriptor = arguments
    connection = socket.socket(fileno=int(descriptor))
    # Frozen, too: no collection in a child looks at what is there now, so its pages stay shared.
    gate.import_all(imports)
    request = serve(connection)
    if request is not None:
        become(request)


def _fork_orphan() -> int | None:
    """Fork a grandchild that leads a session, its parent ended. Its pid, 0 in the grandchild, None when it failed."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            if os.fork() != 0:
                os._exit(0)
        except OSError:
            os._exit(1)
        os.setsid()
        os.write(writing, str(os.getpid()).encode())
        os.close(reading)
        os.close(writing)
        return 0
    os.close(writing)
    with os.fdopen(reading) as pipe:
        pid = pipe.read()
    os.waitpid(parent, 0)
    return int(pid) if pid else None


if __name__ == "__main__":
    main(sys.argv[1:])
