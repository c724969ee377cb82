"""Celery, as a doorbell: messages carry ids only, may be lost or doubled, and a claim in Postgres decides."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from service.bus.names import QUEUE_TRAIN, TASK_QUEUES, TaskName
from service.settings import settings

_QUIET_S = 2.0


@dataclass
class _Broker:
    """What this process last found out about the broker of its application."""

    away_until: float = 0.0
    """In the time of `time.monotonic`."""


_broker = _Broker()


def broker_url(redis_url: str) -> str:
    """`redis_url` as kombu writes it: a socket is `redis+socket://…?virtual_host=N` there."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


@lru_cache(maxsize=1)
def celery_app() -> Celery:
    """The Celery application of this process. Workers add the tasks (`workers.app`)."""
    config = settings()
    app = Celery("foretune", broker=broker_url(config.redis_url))
    _broker.away_until = 0.0
    app.conf.update(
        task_default_queue=QUEUE_TRAIN,
        task_routes={name: {"queue": queue} for name, queue in TASK_QUEUES.items()},
        # Early acknowledgement: with a late one, whatever outlives the visibility timeout starts twice.
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # A fork shares what is imported already. CUDA survives it: torch is imported in the child alone.
        worker_pool_start_method="fork" if sys.platform == "linux" else "spawn",
        # A child imports torch before it is up: on a busy machine that takes longer than the four seconds after
        # which Celery kills it and starts anew, for ever.
        worker_proc_alive_timeout=120.0,
        worker_soft_shutdown_timeout=20.0,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "socket_connect_timeout": 2,
            # A server that hangs must not hang whoever rings.
            "socket_timeout": 2,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.3,
        },
        beat_schedule={
            "upkeep": {
                "task": "upkeep.sweep",
                "schedule": config.foretune_upkeep_every_s,
                # A sweep that nobody took is not worth a second one.
                "options": {"expires": 2 * config.foretune_upkeep_every_s, "queue": TASK_QUEUES["upkeep.sweep"]},
            }
        },
        timezone="UTC",
    )
    return app


def send(name: TaskName, *ids: str) -> None:
    """Rings a worker. Raises what kombu raises when the broker is away; callers ring after the commit.

    For a moment after a failure it raises at once: whoever rings must not wait for a broker that hangs, ring by ring.
    """
    app = celery_app()
    if time.monotonic() < _broker.away_until:
        raise OperationalError("the broker was away a moment ago")
    try:
        app.send_task(name, args=ids, retry=False)
    except OperationalError:
        _broker.away_until = time.monotonic() + _QUIET_S
        raise
