"""Becomes another program after arranging what must be arranged in the child itself. Run as a script,
standard library only.

    python -I -S launch.py PARENT_PID SIGNAL RUN_AS -- PROGRAM [ARGUMENT ...]

Linux only. SIGNAL is what the kernel sends this process when the thread that started it ends, so a supervisor
killed with -9 leaves nothing behind. RUN_AS is one of

    self                  stay who we are namespace:UID:GID     a user namespace of its own in which our user
    appears as UID:GID (Postgres refuses uid 0) switch:UID:GID        give up root and become UID:GID

It replaces itself (exec), so the pid that the supervisor knows is the program's. Exit 125: it could not be
arranged.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
REFUSED_STATUS = 125


def _refuse(what: str) -> NoReturn:
    os.write(2, f"launch: {what}\n".encode())
    os._exit(REFUSED_STATUS)


def _enter_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        _refuse(f"this kernel refuses a user namespace: {os.strerror(ctypes.get_errno())}")
    # Without "deny" the kernel does not let a process map its group.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        try:
            Path(f"/proc/self/{name}").write_text(text)
        except OSError as error:
            _refuse(f"cannot write /proc/self/{name}: {error}")


def end_with_parent(libc: ctypes.CDLL, parent: int, signal_number: int) -> None:
    """Ask the kernel to send us `signal_number` when `parent` ends. Ends this process if it has ended already."""
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        _refuse(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the line above; then no signal would ever come.
    if os.getppid() != parent:
        _refuse("the supervisor is gone")


def main(arguments: list[str]) -> NoReturn:
    """Arrange and exec; see the module's docstring for `arguments`."""
    parent, signal_number, run_as, _, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    kind, *ids = run_as.split(":")
    if kind == "namespace":
        _enter_namespace(libc, int(ids[0]), int(ids[1]))
    elif kind == "switch":
        os.setgroups([])
        os.setgid(int(ids[1]))
        os.setuid(int(ids[0]))
    # Last, because a change of user clears it.
    end_with_parent(libc, int(parent), int(signal_number))
    try:
        os.execve(command[0], command, os.environ)
    except OSError as error:
        _refuse(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
