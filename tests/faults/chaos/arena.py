"""A live stack to be disturbed: two train workers behind links of their own, artifacts on a small disk."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import psycopg

from foretune.client import Client
from service.embedded import children
from service.embedded.children import StackPlan
from service.embedded.processes import MARK
from service.embedded.spawning import ChildSpec
from service.embedded.stack import RunningStack, StackOptions, start
from service.embedded.supervisor import ChildState
from tests.faults.chaos.links import Link

WORKERS = ("train-1", "train-2")
LEASE_S = 3.0
_SETTINGS = {
    "FORETUNE_WORKER_LEASE_S": str(LEASE_S),
    "FORETUNE_UPKEEP_EVERY_S": "0.5",
    "FORETUNE_CHECKPOINT_EVERY_S": "0.2",
    "FORETUNE_SHIFT_S": "5",
    "OMP_NUM_THREADS": "1",
}
_DISK_BYTES = 96 * 2**20
_CLONE_NEWNS, _MS_REC_PRIVATE = 0x20000, 0x44000


@dataclass
class Arena:
    stack: RunningStack
    client: Client
    links: dict[tuple[str, str], Link]
    """By (worker, server): `("train-1", "postgres")`."""
    has_small_disk: bool

    def pid(self, name: str) -> int | None:
        return self.stack.supervisor.pid(name)

    def pool_pid(self, worker: str) -> int | None:
        """The pool process of a train worker, in which torch runs; None while there is none."""
        pid = self.pid(worker)
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                for child in (thread / "children").read_text().split():
                    return int(child)
        return None

    def backend_pid(self) -> int | None:
        """One of the Postgres processes that serve connections."""
        leader = self.pid("postgres")
        with suppress(OSError):
            for child in Path(f"/proc/{leader}/task/{leader}/children").read_text().split():
                if b"foretune" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None

    def signal(self, pid: int | None, number: signal.Signals) -> bool:
        """Whether there was such a process."""
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def wait_until_ready(self, within_s: float = 90.0) -> None:
        deadline = time.monotonic() + within_s
        supervisor = self.stack.supervisor
        while True:
            supervisor.resume(*supervisor.names())
            running = all(supervisor.state(name) is ChildState.READY for name in supervisor.names())
            try:
                ready = self.client.probe("/readyz")
            except Exception as error:  # noqa: BLE001 - said below
                said = repr(error)
            else:
                said = str(ready)
                if running and ready.status == 200 and all(self.pool_pid(worker) for worker in WORKERS):
                    return
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def checkpoints(self) -> list[Path]:
        return [path for path in self.stack.plan.layout.artifacts.glob("checkpoints/**/*") if path.is_file()]

    def rows(self, query: str) -> list[tuple[object, ...]]:
        url = self.stack.plan.database_url.replace("postgresql+psycopg://", "postgresql://", 1)
        with psycopg.connect(url) as connection:
            return connection.execute(query.encode()).fetchall()


@contextmanager
def arena(folder: Path, *, small_disk: bool) -> Iterator[Arena]:
    """`folder` must be new, and its path short enough for Unix sockets."""
    os.environ.update(_SETTINGS)
    for name in ("FORETUNE_URL", "FORETUNE_API_KEY"):
        os.environ.pop(name, None)
    data = folder / "data"
    with ExitStack() as held:
        links: dict[tuple[str, str], Link] = {}

        def first_children(plan: StackPlan) -> Sequence[ChildSpec]:
            workers = [_linked(children.train_worker(plan, number), plan, folder, links) for number in (1, 2)]
            return [children.api(plan), *workers, children.desk_worker(plan)]

        if small_disk:
            disk = data / "artifacts"
            disk.mkdir(mode=0o700, parents=True)
            data.chmod(0o700)
            mount_small_disk(disk)
        options = StackOptions(
            data_dir=data,
            port=0,
            train_workers=2,
            first_children=first_children,
            later_children=lambda plan: [children.beat(plan)],
        )
        stack = held.enter_context(start(options))
        for link in links.values():
            held.callback(link.close)
        client = held.enter_context(Client(stack.url, stack.key_file.read_text().strip()))
        yield Arena(stack, client, links, small_disk)


def _linked(spec: ChildSpec, plan: StackPlan, folder: Path, links: dict[tuple[str, str], Link]) -> ChildSpec:
    """The worker, with links between it and the servers."""
    own = folder / spec.name
    own.mkdir(mode=0o700)
    sockets = plan.layout.sockets()
    links[spec.name, "postgres"] = Link(own / ".s.PGSQL.5432", sockets / ".s.PGSQL.5432")
    links[spec.name, "redis"] = Link(own / "redis.sock", sockets / "redis.sock")
    assert spec.environment is not None
    address = plan.database_url.partition("?")[0]
    environment = {
        **spec.environment,
        "DATABASE_URL": f"{address}?host={quote(str(own), safe='/')}",
        "REDIS_URL": f"unix://{own / 'redis.sock'}?db=0",
    }
    return replace(spec, environment=environment)


def private_mounts() -> bool:
    """Gives this process mounts of its own, which end with it; False where the kernel refuses. Before any thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) == 0)


def mount_small_disk(folder: Path) -> None:
    """A file system of 96 MiB, in memory. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={_DISK_BYTES},mode=0700".encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def left_running(run_folder: Path) -> list[str]:
    """The command lines of processes that belong to the stack with this run folder."""
    mark = os.fsencode(f"{MARK}={run_folder.resolve()}")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found
