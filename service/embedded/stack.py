"""The whole local stack: lock the folder, start the servers, migrate, start API and workers, wait until it is ready.

Everything that can start early does: the Python processes import while Postgres starts, and wait at a gate (`gate.py`)
until the migrations are done.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from service import settings
from service.embedded import children, postgres, redis
from service.embedded.child import ChildEvent
from service.embedded.children import StackPlan
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout, StackRecord, default_data_dir
from service.embedded.ports import claim_port
from service.embedded.processes import end_leftovers
from service.embedded.spawning import ChildSpec
from service.embedded.supervisor import Supervisor

SERVER_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0
_READY_POLL_S = 0.05
"""Asked more often, the answers take time from what is waited for."""


def _first_children(plan: StackPlan) -> list[ChildSpec]:
    """What must run before the stack is ready. The train worker leads: torch takes longest to import."""
    gpus = children.visible_gpus()
    return [children.api(plan), children.train_worker(plan, 1, gpus), children.desk_worker(plan)]


def _later_children(plan: StackPlan) -> list[ChildSpec]:
    """What would only slow the start."""
    gpus = children.visible_gpus()
    return [children.beat(plan), *(children.train_worker(plan, n, gpus) for n in range(2, plan.train_workers + 1))]


def _prepare_database(plan: StackPlan) -> None:
    """Migrate, and make the local key when its file has none that works."""
    from service.db import migrate
    from service.usecases.keys import ensure_local_key

    try:
        migrate.upgrade(plan.database_url)
    except migrate.SchemaTooNew as error:
        raise StackError(StackFault.SCHEMA_TOO_NEW, f"{plan.layout.root}: {error}") from error
    ensure_local_key(plan.database_url, plan.layout.api_key)


def _no_progress(message: str) -> None:
    """The default listener."""


def _no_event(event: ChildEvent) -> None:
    """The default listener."""


@dataclass(frozen=True)
class StackOptions:
    """How to run a stack. `train_workers` None: one a GPU, else by the cores. `port` 0: any free one.

    The four callables at the end exist to be replaced: by a terminal, by tests of the supervisor.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = 8642
    train_workers: int | None = None
    log_level: str = "info"
    on_progress: Callable[[str], None] = _no_progress
    on_event: Callable[[ChildEvent], None] = _no_event
    first_children: Callable[[StackPlan], Sequence[ChildSpec]] = _first_children
    later_children: Callable[[StackPlan], Sequence[ChildSpec]] = _later_children
    prepare_database: Callable[[StackPlan], None] = _prepare_database


@dataclass
class RunningStack:
    """A stack that serves. Close it with `stop`, or use it as a context."""

    plan: StackPlan
    supervisor: Supervisor
    ready_after_s: float
    _held: ExitStack
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where the API answers."""
        return self.plan.url

    @property
    def key_file(self) -> Path:
        """The file with the local key."""
        return self.plan.layout.api_key

    @property
    def log_dir(self) -> Path:
        """The folder with one log a process."""
        return self.plan.layout.logs

    @property
    def log_names(self) -> list[str]:
        """The processes that have a log, in the order of their start."""
        return self.supervisor.names()

    def wait(self) -> None:
        """Sleep until `stop` is called or a signal's exception wakes the main thread."""
        self._stopping.wait()

    def stop(self) -> None:
        """Stop everything in order and let go of the folder. Safe to call twice."""
        self._stopping.set()
        self._held.close()

    def __enter__(self) -> RunningStack:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def start(options: StackOptions) -> RunningStack:
    """Start the stack and wait until `GET /readyz` is 200. Whatever goes wrong, nothing is left running.

    Raises `StackError`, one fault for each thing that can be wrong.
    """
    begun = time.monotonic()
    check_platform()
    check_settings()
    layout = Layout.of(options.data_dir)
    layout.create()
    with ExitStack() as held:
        held.enter_context(layout.locked())
        layout.check_free_space()
        for sentence in end_leftovers(layout.run):
            options.on_progress(sentence)
        layout.gate.unlink(missing_ok=True)
        layout.stack_record.unlink(missing_ok=True)
        port = claim_port(options.host, options.port)
        cluster = postgres.locate_cluster(layout)
        workers = options.train_workers or children.default_train_workers(children.visible_gpus())
        plan = StackPlan(
            layout, options.host, port, workers, cluster.database_url, redis.redis_url(layout), options.log_level
        )
        supervisor = Supervisor(layout.run, options.on_event)
        held.callback(layout.stack_record.unlink, missing_ok=True)
        held.callback(supervisor.close)
        _bring_up(options, plan, cluster, supervisor)
        return RunningStack(plan, supervisor, time.monotonic() - begun, held.pop_all())


def check_platform() -> None:
    """Raises `StackError(UNSUPPORTED_PLATFORM)` where the embedded servers do not run."""
    if sys.platform not in ("linux", "darwin"):
        raise StackError(
            StackFault.UNSUPPORTED_PLATFORM,
            f"the embedded servers run on Linux and macOS, not on {sys.platform}; use WSL or docker compose",
        )


def check_settings() -> None:
    """Raises `StackError(BAD_SETTING)` where an environment variable would keep every process from starting."""
    wrong = settings.faults()
    if wrong:
        raise StackError(StackFault.BAD_SETTING, "; ".join(wrong))


def _bring_up(options: StackOptions, plan: StackPlan, cluster: postgres.Cluster, supervisor: Supervisor) -> None:
    options.on_progress("starting Postgres and Redis")
    first = list(options.first_children(plan))
    if any(child.gated for child in first):
        supervisor.preload(children.fork_server(plan))
    supervisor.start(redis.server_spec(plan.layout), *first)
    postgres.prepare_cluster(cluster, plan.layout)
    with ThreadPoolExecutor(1, "sync") as threads:
        syncing = threads.submit(postgres.sync_cluster, cluster)
        supervisor.start(postgres.server_spec(cluster))
        supervisor.wait_ready("postgres", timeout_s=SERVER_TIMEOUT_S)
        options.on_progress("migrating the database")
        options.prepare_database(plan)
        supervisor.wait_ready("redis", timeout_s=SERVER_TIMEOUT_S)
        syncing.result()
    plan.layout.gate.touch(mode=0o600)
    options.on_progress("starting the API and the workers")
    _wait_until_ready(plan, supervisor)
    supervisor.start(*options.later_children(plan))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    plan.layout.write_stack_record(
        StackRecord(os.getpid(), plan.url, plan.host, plan.port, now, plan.database_url, plan.redis_url)
    )


def _wait_until_ready(plan: StackPlan, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        supervisor.raise_for_crash_loop()
        status, answer = _ask_readyz(plan.url)
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise StackError(
                StackFault.NOT_READY,
                f"{plan.url}/readyz was not OK after {READY_TIMEOUT_S:.0f} s; its last answer: {answer}; "
                f"the logs are in {plan.layout.logs}",
            )
        time.sleep(_READY_POLL_S)


def _ask_readyz(url: str) -> tuple[int, str]:
    """Status and body of `GET /readyz`; status 0 while nobody listens. Never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=5) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
