"""The data folder: where each part of a local stack keeps its files, and who may use the folder now.

    DIR/                 0700
      lock               flock: held by the live stack (or by whoever works on the folder) api_key
      0600, the key of project `default` postgres/ redis/   the servers' own files artifacts/         data
      sets, checkpoints, models logs/NAME.log      one log a process run/               NAME.pid of every
      child, stack.json of the live stack, sockets when their paths are short enough

Unix socket paths end at 107 bytes (103 on macOS), and some file systems hold no sockets at all; then the
sockets live in a short folder of their own (`Layout.sockets`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from service.embedded.faults import StackError, StackFault

LOG_ROTATE_BYTES = 10 * 2**20
MINIMUM_FREE_BYTES = 200 * 2**20
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
# What every reader of a socket path understands: libpq splits a host at commas, SQLAlchemy at colons, URLs at
# ? and #.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"


def default_data_dir() -> Path:
    """`~/.foretune`, the folder used when none is named."""
    return Path.home() / ".foretune"


@dataclass(frozen=True)
class StackRecord:
    """`run/stack.json`: the live stack, for those who want to find it. `started_at` is ISO 8601, UTC."""

    pid: int
    url: str
    host: str
    port: int
    started_at: str
    database_url: str
    redis_url: str


@dataclass(frozen=True)
class Layout:
    """The paths of one data folder. Making a `Layout` touches nothing; `create` does."""

    root: Path

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """The layout of `folder`, made absolute: the processes of a stack work in other folders."""
        return cls(folder.expanduser().absolute())

    @property
    def gate(self) -> Path:
        """Exists once the database is ready: see `gate.py`."""
        return self.run / "gate-open"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def api_key(self) -> Path:
        return self.root / "api_key"

    @property
    def stack_record(self) -> Path:
        return self.run / "stack.json"

    def log(self, name: str) -> Path:
        """The log file of process `name`."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folder and its parts, 0700. Raises `StackError(FOLDER_NOT_WRITABLE | DISK_FULL)`."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.root.stat().st_uid
            if owner != os.geteuid():
                raise StackError(
                    StackFault.FOLDER_NOT_WRITABLE,
                    f"{self.root} belongs to user {owner}, and this process runs as user {os.geteuid()}; "
                    "run as its owner or name another folder with --data-dir",
                )
            self.root.chmod(0o700)
            for part in (self.redis, self.artifacts, self.logs, self.run):
                part.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if error.errno == 28:
                raise disk_full(self.root) from error
            raise StackError(
                StackFault.FOLDER_NOT_WRITABLE,
                f"cannot write to {self.root}: {error.strerror}; name another folder with --data-dir",
            ) from error

    def sockets(self) -> Path:
        """The folder for Unix sockets: `run/` when it can hold them, else a short 0700 folder found by the
        hash of `root`.
        """
        if _can_hold_sockets(self.run):
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
        name = f"foretune-{os.geteuid()}-{digest}"
        for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
            if parent and Path(parent).is_dir():
                folder = Path(parent) / name
                with suppress(OSError):
                    folder.mkdir(mode=0o700, exist_ok=True)
                if _is_private(folder) and _can_hold_sockets(folder):
                    return folder
        raise StackError(
            StackFault.FOLDER_NOT_WRITABLE,
            f"no folder for Unix sockets: neither {self.run} nor a folder {name} in the temporary folder can hold "
            f"them (paths may have {_SOCKET_PATH_BYTES} bytes)",
        )

    def check_free_space(self, minimum_bytes: int = MINIMUM_FREE_BYTES) -> None:
        """Raises `StackError(DISK_FULL)` when fewer than `minimum_bytes` are free under `root`."""
        if shutil.disk_usage(self.root).free < minimum_bytes:
            raise disk_full(self.root, minimum_bytes)

    def read_stack_record(self) -> StackRecord | None:
        """The record of the stack that says it is live, or None. Its process may be gone: see `holder`."""
        try:
            return StackRecord(**json.loads(self.stack_record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_stack_record(self, record: StackRecord) -> None:
        """Write `run/stack.json`, readable by its owner alone."""
        write_private(self.stack_record, json.dumps(asdict(record), indent=2) + "\n")

    def is_locked(self) -> bool:
        """Whether a live process holds the folder."""
        if not self.lock.exists():
            return False
        with self.lock.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. The kernel lets go when the process ends, however it ends.

        Raises `StackError(FOLDER_IN_USE)` with the holder's URL and pid when another process holds it.
        """
        # Not inheritable (Python's default), so that no child keeps the lock alive after us.
        with self.lock.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise self._in_use(handle.name) from error
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            yield

    def _in_use(self, lock: str) -> StackError:
        pid = Path(lock).read_text().strip() or "unknown"
        record = self.read_stack_record()
        where = f" at {record.url}" if record is not None and str(record.pid) == pid else ""
        return StackError(
            StackFault.FOLDER_IN_USE,
            f"{self.root} is in use by a live stack{where} (pid {pid}); stop it with `kill {pid}` or name "
            "another folder with --data-dir",
        )


def disk_full(folder: Path, minimum_bytes: int = MINIMUM_FREE_BYTES) -> StackError:
    """The error that says how much room is left beside `folder` and how much is needed."""
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    return StackError(
        StackFault.DISK_FULL,
        f"the disk that holds {folder} has {free / 2**20:.0f} MB free and at least {minimum_bytes / 2**20:.0f} MB "
        "are needed; free some space or name a folder on another disk with --data-dir",
    )


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` at once (readers see the old or the new file), mode 0600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def rotate_log(path: Path, limit_bytes: int = LOG_ROTATE_BYTES) -> None:
    """Move a log over `limit_bytes` aside as `NAME.log.1`; one old file is kept."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(path.name + ".1"))


def _can_hold_sockets(folder: Path) -> bool:
    """Tried for real: not every file system (network shares, mounts into containers) holds sockets."""
    longest = str(folder / _LONGEST_SOCKET_NAME)
    if len(os.fsencode(longest)) > _SOCKET_PATH_BYTES or not _PLAIN_PATH.fullmatch(longest):
        return False
    probe = folder / f".probe-{os.getpid() % 10000}"
    with socket.socket(socket.AF_UNIX) as endpoint:
        try:
            endpoint.bind(str(probe))
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)
    return True


def _is_private(folder: Path) -> bool:
    """Whether `folder` is a real folder of ours that nobody else may enter: /tmp is everybody's."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
