"""Every Redis key, queue and task name. One file owns the scheme."""

from __future__ import annotations

from typing import Literal

QUEUE_TRAIN = "train"
QUEUE_DATASETS = "datasets"
QUEUE_UPKEEP = "upkeep"
QUEUE_META = "meta"
QUEUE_PROPOSE = "propose"
"""Not a Celery queue with messages: a worker that names it answers calls from `CALLS`."""

TASK_QUEUES: dict[str, str] = {
    "train.shift": QUEUE_TRAIN,
    "datasets.parse": QUEUE_DATASETS,
    "upkeep.sweep": QUEUE_UPKEEP,
    "meta.fit": QUEUE_META,
}
TaskName = Literal["train.shift", "datasets.parse", "upkeep.sweep", "meta.fit"]

CALLS = "foretune:calls"
NO_EVENTS = "foretune:events:"
"""The channel of no experiment."""


def reply_key(process: str) -> str:
    """Where the replies to one process's calls go."""
    return f"foretune:replies:{process}"


def event_channel(experiment_id: str) -> str:
    return f"foretune:events:{experiment_id}"


def dataset_channel(dataset_id: str) -> str:
    """Datasets wake their waiters the way experiments do."""
    return event_channel(dataset_id)
