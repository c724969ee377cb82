"""The Celery tasks: a few lines each. Arguments are ids, and running one twice is harmless."""

from __future__ import annotations

from celery import shared_task

from service.usecases import checkpoints, upkeep
from workers.apart import fit_apart
from workers.process import this_process
from workers.turns import take_turn


@shared_task(name="train.shift", time_limit=None)
def shift(experiment_id: str) -> None:
    """Trains open trials for a bounded time, of this experiment or of one whose turn it is; see `workers.turns`."""
    take_turn(this_process(), experiment_id)


@shared_task(name="datasets.parse", soft_time_limit=None)
def parse(dataset_id: str) -> None:
    """Reads an upload and keeps its canonical form."""
    from workers.parsing import parse_dataset

    parse_dataset(this_process(), dataset_id)


@shared_task(name="meta.fit", soft_time_limit=None)
def fit(project_id: str) -> None:
    """Fits a project's model of its histories for a bounded time, and hands back what is left."""
    fit_apart(this_process(), project_id)


@shared_task(name="upkeep.sweep")
def sweep() -> None:
    """Frees what dead processes held and rings again where a message was lost."""
    process = this_process()
    upkeep.sweep(process.database, process.bus)
    checkpoints.tidy_finished(process.database, process.artifacts)
