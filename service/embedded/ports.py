"""Whether a TCP port is free, and who has it when it is not."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path

from service.embedded.faults import StackError, StackFault

_LISTENING = "0A"  # state of a socket in /proc/net/tcp


def claim_port(host: str, port: int) -> int:
    """The port to listen on: `port` when it is free on `host`, any free one for 0.

    Raises `StackError(PORT_TAKEN)` with the pid and command that has it, where the system shows them, and
    `StackError(BAD_ADDRESS)` for a host that is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as endpoint:
            # As the API will bind: without it, connections of the last run that linger would count as taken.
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            endpoint.bind((host, port))
            return int(endpoint.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder = port_holder(port)
            by_whom = f" by {holder}" if holder else ""
            raise StackError(
                StackFault.PORT_TAKEN, f"port {port} on {host} is taken{by_whom}; choose another with --port"
            ) from error
        if error.errno == errno.EACCES:
            raise StackError(
                StackFault.PORT_TAKEN,
                f"port {port} needs privileges that this user lacks; choose one over 1023 with --port",
            ) from error
        raise StackError(
            StackFault.BAD_ADDRESS, f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error


def port_holder(port: int) -> str | None:
    """`pid 123 (command line)` of the process that listens on `port`, as far as we may see it; Linux only."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Processes of other users do not show their files; they may also end while we look.
            with suppress(OSError):
                if any(_is_one_of(link, inodes) for link in (entry / "fd").iterdir()):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                    return f"pid {entry.name} ({words[:80]})"
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _is_one_of(link: Path, inodes: set[str]) -> bool:
    with suppress(OSError):
        return str(link.readlink()) in inodes
    return False
