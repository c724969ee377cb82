"""What an export holds of a trial, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from foretune.schedules import SHAPE_FIELDS
from foretune.spaces import Space
from service.db.experiments import StoredExperiment
from service.db.trials import StoredMeasurement, StoredTrial

TRIAL_COLUMNS = (
    "id",
    "number",
    "state",
    "origin",
    "value",
    "best_value",
    "best_epoch",
    "epochs",
    "attempts",
    "training_seconds",
    "created_at",
    "started_at",
    "finished_at",
    "reason",
)
SCHEDULE_COLUMNS = ("peak", *SHAPE_FIELDS)


@dataclass(frozen=True)
class Curve:
    """A trial with its measurements, by epoch; they are not read for csv."""

    trial: StoredTrial
    measurements: list[StoredMeasurement]


@dataclass(frozen=True)
class Columns:
    """The columns that depend on the experiment."""

    hyperparameters: tuple[str, ...]
    schedule: bool


def columns_of(experiment: StoredExperiment) -> Columns:
    """The same whatever the trials hold, so that the header can be written first. Widening keeps the names."""
    space = Space.from_json(experiment.space)
    shape = space.schedule.name if space.schedule else "lr_schedule"
    schedule = space.schedule is not None or isinstance(experiment.fixed.get("lr_schedule"), dict)
    names = [*experiment.fixed, *(parameter.name for parameter in space.parameters)]
    return Columns(tuple(dict.fromkeys(name for name in names if not (schedule and name == shape))), schedule)


def trial_cells(trial: StoredTrial) -> dict[str, str | int | float | datetime | None]:
    """What stands under `TRIAL_COLUMNS`."""
    return {
        "id": trial.id,
        "number": trial.number,
        "state": trial.state.value,
        "origin": trial.origin,
        "value": trial.value,
        "best_value": trial.best_value,
        "best_epoch": trial.best_epoch,
        "epochs": trial.epochs,
        "attempts": trial.attempts,
        "training_seconds": trial.seconds,
        "created_at": trial.created_at,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
        "reason": trial.reason,
    }
