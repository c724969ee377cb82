"""What `foretune doctor` looks at on this machine and at the servers that its settings name.

Nothing is changed: the data folder is not even made.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from service import settings
from service.embedded import postgres, redis, servers_set
from service.embedded.faults import StackError
from service.embedded.layout import MINIMUM_FREE_BYTES, Layout, default_data_dir
from service.embedded.ports import claim_port
from service.embedded.processes import identify, is_alive, read_pid_file

DEFAULT_PORT = 8642
_MINIMUM_MEMORY_BYTES = 2 * 2**30
_OLDEST_PYTHON = (3, 11)
_TORCH_PROBE = (
    "import torch; kind = 'cuda' if torch.cuda.is_available() else "
    "'mps' if torch.backends.mps.is_available() else 'cpu'; "
    "name = torch.cuda.get_device_name() if kind == 'cuda' else kind; print(f'torch {torch.__version__} on {name}')"
)


@dataclass(frozen=True)
class Check:
    """One thing looked at. `fix` says what to do when `ok` is false, else it is empty."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def local_checks(service_url: str | None = None) -> list[Check]:
    """The servers that are set; where the service is meant to be on this machine, also what `foretune up` needs."""
    if service_url is None:
        return [_settings(), *_servers()]
    return [*_servers(), *machine_checks(port=urlsplit(service_url).port or DEFAULT_PORT)]


def machine_checks(data_dir: Path | None = None, port: int = DEFAULT_PORT) -> list[Check]:
    """Look at everything that `foretune up` needs. Takes a few seconds: torch is imported in a process of its own."""
    layout = Layout.of(data_dir or default_data_dir())
    looks: tuple[Callable[[], Check], ...] = (
        _python,
        _settings,
        lambda: _wheel("Postgres binaries", lambda: postgres.find_binaries() / "postgres"),
        lambda: _wheel("Redis-protocol server", redis.find_server),
        lambda: _folder(layout),
        lambda: _space(layout),
        lambda: _state(layout),
        lambda: _port(layout, port),
        _memory,
        _torch,
        _clock,
    )
    return [look() for look in looks]


def _servers() -> list[Check]:
    """What each setting that is set leads to, whatever the service at FORETUNE_URL itself uses."""
    found = []
    for name, look in servers_set.LOOKS.items():
        address = os.environ.get(name)
        if address is not None:
            fault = look(address)
            fix = f"start that server, or change or unset {name}"
            found.append(Check(name, fault is None, fault or servers_set.GOOD[name], fix if fault else ""))
    return found


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info[:2] >= _OLDEST_PYTHON
    return Check("Python", ok, f"{version} ({sys.executable})", "" if ok else "install Python 3.11 or newer")


def _settings() -> Check:
    wrong = settings.faults()
    if wrong:
        return Check("settings", False, "; ".join(wrong), "change or unset these environment variables")
    return Check("settings", True, "the environment can be used")


def _wheel(name: str, find: Callable[[], Path]) -> Check:
    """The program is there and runs: a wheel for another C library is there and does not."""
    try:
        program = find()
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except StackError as error:
        return Check(name, False, error.message, "pip install 'foretune[embedded]'")
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name, False, f"does not run: {error}", "reinstall with pip install --force-reinstall 'foretune[embedded]'"
        )
    return Check(name, True, answer.stdout.strip().splitlines()[0])


def _folder(layout: Layout) -> Check:
    folder = layout.root
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check("data folder", False, f"{existing} is not writable", "choose another folder with --data-dir")
    if existing != folder:
        return Check("data folder", True, f"{folder} (foretune up makes it; another with --data-dir)")
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        detail = f"{folder} belongs to user {owner}, and this is user {os.geteuid()}"
        return Check("data folder", False, detail, "run as its owner or choose another folder with --data-dir")
    return Check("data folder", True, str(folder))


def _space(layout: Layout) -> Check:
    existing = next(path for path in (layout.root, *layout.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    ok = free >= MINIMUM_FREE_BYTES
    fix = "" if ok else f"free some space: at least {MINIMUM_FREE_BYTES // 2**20} MB are needed"
    return Check("disk space", ok, f"{free / 2**30:.1f} GB free", fix)


def _state(layout: Layout) -> Check:
    if layout.is_locked():
        record = layout.read_stack_record()
        where = f" at {record.url} (pid {record.pid})" if record is not None else ", which is starting or stopping"
        return Check("stack", True, f"a live stack uses the folder{where}")
    stale = [path.stem for path in sorted(layout.run.glob("*.pid"))] if layout.run.exists() else []
    living = [name for name in stale if (one := read_pid_file(layout.run / f"{name}.pid")) and is_alive(one)]
    if living:
        return Check(
            "stack", False, f"left behind by a killed stack: {', '.join(living)}", "`foretune up` ends them first"
        )
    if stale:
        return Check("stack", True, f"not running; stale pid files ({', '.join(stale)}) are removed by the next start")
    return Check("stack", True, "not running")


def _port(layout: Layout, port: int) -> Check:
    record = layout.read_stack_record()
    if record is not None and record.port == port and identify(record.pid) is not None and layout.is_locked():
        return Check("port", True, f"{port} is used by this folder's live stack")
    try:
        claim_port("127.0.0.1", port)
    except StackError as error:
        if _is_foretune(port):
            return Check("port", True, f"{port} is used by a running Foretune")
        return Check("port", False, error.message, "stop that program or choose another port with --port")
    return Check("port", True, f"{port} is free")


def _is_foretune(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2.0, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(answer, dict) and answer.keys() >= {"status", "version"}


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ok = total >= _MINIMUM_MEMORY_BYTES
    return Check(
        "memory", ok, f"{total / 2**30:.1f} GB", "" if ok else "at least 2 GB are needed; run with --workers 1"
    )


def _torch() -> Check:
    """In a process of its own: the service itself never imports torch."""
    command = [sys.executable, "-c", _TORCH_PROBE]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return Check("torch", False, "importing it took more than two minutes", "look at the machine's disk and load")
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Check("torch", False, reason, "pip install 'foretune[worker]'")
    return Check("torch", True, answer.stdout.strip())


def _clock() -> Check:
    """Leases and keys compare times with the database's clock, and files carry their own: a clock far in the past
    breaks both.
    """
    built = Path(__file__).stat().st_mtime
    ok = time.time() > built - 86_400
    detail = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return Check("clock", ok, f"{detail} on {socket.gethostname()}", "" if ok else "set the machine's clock (use NTP)")
