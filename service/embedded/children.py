"""The Python processes of a local stack: API, desk worker, train workers, beat.

Stop order, by stage: API and beat first (nothing new comes in), then the workers, then Redis (1) and Postgres (0).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.embedded.gate import command, gated
from service.embedded.layout import Layout
from service.embedded.spawning import ChildSpec

API_STAGE = 3
WORKER_STAGE = 2
DESK_QUEUES = "propose,datasets,upkeep,meta"
_CELERY = ("celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "kombu.transport.redis")
_WORKER = (*_CELERY, "workers.app")
_DESK = ("workers.desk", "workers.parsing")
# What at least two of the forked processes need, and whose import looks at no setting that differs between them. The
# pool process of a train worker is a fork of a fork, so it needs torch besides, and little else.
SHARED_IMPORTS = (
    *_CELERY,
    "celery.app.amqp",
    "celery.app.control",
    "service.artifacts",
    "service.logs",
    "service.usecases.checkpoints",
    "service.usecases.datasets",
    "service.usecases.shifts",
    "service.usecases.upkeep",
    "workers.proposals",
)


@dataclass(frozen=True)
class StackPlan:
    """What the children of one stack need to know. `port` is the real one, `train_workers` at least 1."""

    layout: Layout
    host: str
    port: int
    train_workers: int
    database_url: str
    redis_url: str
    log_level: str = "info"

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def fork_server(plan: StackPlan) -> ChildSpec:
    """The warm interpreter that the other Python processes are forked off."""
    return ChildSpec(
        name="forkserver",
        argv=(sys.executable, "-m", "service.embedded.forkserver", ",".join(SHARED_IMPORTS)),
        log=plan.layout.log("forkserver"),
        # It must not have threads when it forks, and numpy's BLAS starts some. Training uses one in any case.
        environment={**_environment(plan), "OPENBLAS_NUM_THREADS": "1"},
        folder=plan.layout.run,
    )


def api(plan: StackPlan) -> ChildSpec:
    """The HTTP API: a program of its own, which imports while the fork server does."""
    arguments = ("--host", plan.host, "--port", str(plan.port))
    return _python_child(
        plan,
        "api",
        API_STAGE,
        ("service.api.app",),
        "service.api",
        *arguments,
        gate=plan.layout.gate,
        forked=False,
        stop_timeout_s=10.0,
    )


def desk_worker(plan: StackPlan) -> ChildSpec:
    """The worker for everything but training: four threads."""
    pool = ("-P", "threads", "-c", "4")
    imports, gate = (*_WORKER, *_DESK), plan.layout.gate
    return _worker(plan, "desk", DESK_QUEUES, pool, imports=imports, gate=gate, stop_timeout_s=15.0)


def train_worker(plan: StackPlan, number: int, gpus: tuple[str, ...] = ()) -> ChildSpec:
    """Train worker `number`, from 1; with GPUs it sees one of them alone.

    It is not gated: its pool process imports torch first, longer than anything else of a start takes, and waits for the
    schema by itself.
    """
    pool = ("-P", "prefork", "-c", "1")
    # SIGTERM as "finish the epoch, checkpoint, hand back", within the worker's soft shutdown time.
    extra = {"REMAP_SIGTERM": "SIGQUIT"}
    if gpus:
        extra["CUDA_VISIBLE_DEVICES"] = gpus[(number - 1) % len(gpus)]
    return _worker(plan, f"train-{number}", "train", pool, extra, gate=None, stop_timeout_s=40.0)


def beat(plan: StackPlan) -> ChildSpec:
    """The clock that sends upkeep on its way."""
    schedule = str(plan.layout.run / "beat-schedule")
    arguments = ("-A", "workers.app", "beat", "-s", schedule, "-l", plan.log_level)
    return _python_child(plan, "beat", API_STAGE, (), "celery", *arguments, gate=plan.layout.gate, stop_timeout_s=5.0)


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them. Found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() and name.strip() != "-1")
    numbers = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted((number for number in numbers if number.isdigit()), key=int))


def default_train_workers(gpus: tuple[str, ...]) -> int:
    """One a GPU; without GPUs three of four cores, at most eight, and both of two.

    The desk, the API and Postgres need little, and go first: on a CPU train workers are nice to them.
    """
    cores = os.cpu_count() or 1
    return len(gpus) or max(1, min(8, cores - cores // 4))


def _worker(
    plan: StackPlan,
    name: str,
    queues: str,
    pool: tuple[str, ...],
    extra: Mapping[str, str] | None = None,
    *,
    imports: tuple[str, ...] = _WORKER,
    gate: Path | None,
    stop_timeout_s: float,
) -> ChildSpec:
    # Without mingle and gossip: workers here share everything through Postgres, and mingling costs a second at the
    # start.
    quiet = ("--without-mingle", "--without-gossip")
    arguments = ("-A", "workers.app", "worker", "-Q", queues, *pool, "-n", f"{name}@%h", "-l", plan.log_level, *quiet)
    return _python_child(
        plan, name, WORKER_STAGE, imports, "celery", *arguments, extra=extra, gate=gate, stop_timeout_s=stop_timeout_s
    )


def _python_child(
    plan: StackPlan,
    name: str,
    stage: int,
    imports: tuple[str, ...],
    module: str,
    *arguments: str,
    extra: Mapping[str, str] | None = None,
    gate: Path | None,
    forked: bool = True,
    stop_timeout_s: float,
) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=command(gate, imports, module, *arguments),
        gated=gated(gate, imports, module, *arguments) if forked else None,
        log=plan.layout.log(name),
        environment={**_environment(plan), **(extra or {})},
        # `python -m` imports from the working folder first: not the user's, which may hold anything.
        folder=plan.layout.run,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=stop_timeout_s,
        stage=stage,
    )


def _environment(plan: StackPlan) -> dict[str, str]:
    return {
        "FORETUNE_LOG_FORMAT": "text",
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "DATABASE_URL": plan.database_url,
        "REDIS_URL": plan.redis_url,
        "ARTIFACTS_URL": f"file://{plan.layout.artifacts}",
        "PYTHONUNBUFFERED": "1",
    }
