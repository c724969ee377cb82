"""The numbers behind `GET /metrics` that only the database and the broker know."""

from __future__ import annotations

from dataclasses import dataclass, field

import redis

from service.bus import Bus
from service.bus.names import QUEUE_DATASETS, QUEUE_META, QUEUE_TRAIN, QUEUE_UPKEEP
from service.db import health as health_rows
from service.db.session import Transaction
from service.usecases.health import WORKER_SEEN

_QUEUES = (QUEUE_TRAIN, QUEUE_DATASETS, QUEUE_META, QUEUE_UPKEEP)


@dataclass(frozen=True)
class Snapshot:
    """Counts at one moment. A part that does not answer leaves its counts out."""

    experiments: dict[str, int] = field(default_factory=dict)
    """By state."""
    open_trials: dict[str, int] = field(default_factory=dict)
    """By state, of experiments that are not finished."""
    trials_created: int = 0
    trials_finished: int = 0
    epochs: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    """By kind, seen lately."""
    queues: dict[str, int] = field(default_factory=dict)
    """Messages that wait, by queue; `calls` are questions to the desk."""


def snapshot(tx: Transaction, bus: Bus) -> Snapshot:
    """Costs four small queries: trials of finished experiments are not read."""
    totals = health_rows.totals(tx)
    return Snapshot(
        experiments=health_rows.experiments_by_state(tx),
        open_trials=health_rows.open_trials_by_state(tx),
        trials_created=totals.trials_created,
        trials_finished=totals.trials_finished,
        epochs=totals.epochs,
        workers=health_rows.live_workers(tx, WORKER_SEEN),
        queues=_queues(bus),
    )


def _queues(bus: Bus) -> dict[str, int]:
    try:
        return {**bus.queue_lengths(_QUEUES), "calls": bus.calls_waiting()}
    except (redis.RedisError, OSError):
        return {}
