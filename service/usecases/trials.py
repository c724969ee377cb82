"""Trials, as clients read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from foretune.errors import NotFound
from foretune.events import EventType
from foretune.ids import new_id
from foretune.json_types import JsonObject
from foretune.roles import guess_role
from foretune.schedules import LearningRateSchedule, ScheduleShape
from foretune.spaces import Configuration, Space
from foretune.states import TrialState
from foretune.wire import trials as wire
from foretune.wire.base import Page
from foretune.wire.experiments import LrSchedule
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger
from service.db.session import Transaction
from service.db.trials import StoredTrial
from service.usecases.paging import read_number, write_cursor


def get(tx: Transaction, project: str, trial_id: str) -> wire.Trial:
    """Raises NotFound."""
    return to_wire(_find(tx, project, trial_id))


def list_page(
    tx: Transaction, project: str, experiment_id: str, *, state: TrialState | None, limit: int, cursor: str | None
) -> Page[wire.Trial]:
    """By number. Raises NotFound, InvalidRequest for a cursor that no page gave."""
    if experiment_rows.find(tx, project, experiment_id) is None:
        raise NotFound(f"there is no experiment {experiment_id!r}")
    after = read_number(cursor)
    found = trial_rows.list_by_number(tx, experiment_id, state=state, after=after, limit=limit + 1)
    items = [to_wire(trial) for trial in found[:limit]]
    return Page(items=items, next=write_cursor(items[-1].number) if len(found) > limit else None)


def measurements_page(
    tx: Transaction, project: str, trial_id: str, *, limit: int, cursor: str | None
) -> Page[wire.Measurement]:
    """By epoch. Raises NotFound, InvalidRequest for a cursor that no page gave."""
    trial = _find(tx, project, trial_id)
    after = read_number(cursor)
    found = trial_rows.list_measurements(tx, trial.id, after=after, limit=limit + 1)
    items = [
        wire.Measurement(
            epoch=one.epoch, value=one.value, seconds=one.seconds, metrics=one.metrics, created_at=one.created_at
        )
        for one in found[:limit]
    ]
    return Page(items=items, next=write_cursor(items[-1].epoch) if len(found) > limit else None)


@dataclass(frozen=True)
class CheckpointPlace:
    artifact: str
    epoch: int


def checkpoint(tx: Transaction, project: str, trial_id: str) -> CheckpointPlace:
    """Where the newest checkpoint lies. Raises NotFound when none is kept."""
    trial = _find(tx, project, trial_id)
    if trial.checkpoint is None:
        raise NotFound(f"no checkpoint of trial {trial_id!r} is kept", code="no_checkpoint")
    return CheckpointPlace(str(trial.checkpoint["artifact"]), int(str(trial.checkpoint["epoch"])))


def to_wire(trial: StoredTrial) -> wire.Trial:
    return wire.Trial(
        id=trial.id,
        experiment=trial.experiment_id,
        number=trial.number,
        state=trial.state,
        reason=trial.reason,
        hyperparameters=trial.hyperparameters,
        lr_schedule=LrSchedule.model_validate(trial.lr_schedule) if trial.lr_schedule else None,
        origin=trial.origin,
        predicted=wire.Prediction.model_validate(trial.predicted) if trial.predicted else None,
        attempts=trial.attempts,
        epochs=trial.epochs,
        value=trial.value,
        best_value=trial.best_value,
        best_epoch=trial.best_epoch,
        seconds=trial.seconds,
        created_at=trial.created_at,
        started_at=trial.started_at,
        finished_at=trial.finished_at,
    )


@dataclass(frozen=True)
class Proposed:
    """A proposal as the meta-learner's worker hands it over."""

    configuration: Configuration
    origin: str
    predicted: JsonObject | None
    replay: JsonObject
    """Seed, index and the last event seen: enough to make the same proposal again."""


def start_trial(
    ledger: Ledger, proposed: Proposed, *, lease: str | None, lease_until: datetime, worker: str | None
) -> StoredTrial:
    """Creates the experiment's next trial, which runs at once under a lease, and announces it."""
    experiment = ledger.experiment
    hyperparameters, schedule = settle(experiment, proposed.configuration)
    trial = StoredTrial(
        id=new_id("tri"),
        experiment_id=experiment.id,
        number=experiment.trials_created + 1,
        state=TrialState.RUNNING,
        reason=None,
        configuration=proposed.configuration,
        hyperparameters=hyperparameters,
        lr_schedule=schedule.to_json(experiment.max_epochs) if schedule else None,
        max_epochs=experiment.max_epochs,
        origin=proposed.origin,
        predicted=None if proposed.predicted is None else {"metric": experiment.metric_name, **proposed.predicted},
        proposal=proposed.replay,
        attempts=1,
        lease=lease,
        lease_until=lease_until,
        worker=worker,
        epochs=0,
        value=None,
        best_value=None,
        best_epoch=None,
        seconds=0.0,
        checkpoint=None,
        created_at=ledger.now,
        started_at=ledger.now,
        finished_at=None,
        changed_seq=0,
        result_seq=None,
    )
    ledger.event(
        EventType.TRIAL_CREATED,
        {
            "trial": trial.id,
            "number": trial.number,
            "hyperparameters": hyperparameters,
            "lr_schedule": trial.lr_schedule,
            "origin": trial.origin,
            "predicted": trial.predicted,
        },
    )
    return ledger.add_trial(trial)


def settle(
    experiment: StoredExperiment, configuration: Configuration
) -> tuple[JsonObject, LearningRateSchedule | None]:
    """All hyperparameters of a trial, the fixed ones among them, and its schedule if it has one.

    The peak is the value with the role `learning_rate`; a space without one has peak 1: a factor on the client's own.
    """
    space = Space.from_json(experiment.space)
    hyperparameters: JsonObject = dict(experiment.fixed)
    shape = _fixed_shape(hyperparameters)
    for name, value in configuration.items():
        if space.schedule is not None and name == space.schedule.name:
            shape = ScheduleShape.from_json(value)
        else:
            hyperparameters[name] = value
    if shape is None:
        return hyperparameters, None
    fixed_peak = next((name for name in experiment.fixed if guess_role(name) == "learning_rate"), None)
    peak = hyperparameters.get(space.with_role("learning_rate") or fixed_peak or "learning_rate", 1.0)
    return hyperparameters, LearningRateSchedule(float(peak) if isinstance(peak, int | float) else 1.0, shape)


def _fixed_shape(hyperparameters: JsonObject) -> ScheduleShape | None:
    """Takes a schedule that is fixed, rather than searched, out of the hyperparameters."""
    value = hyperparameters.get("lr_schedule")
    if isinstance(value, dict):
        del hyperparameters["lr_schedule"]
        return ScheduleShape.from_json(value)
    return None


def _find(tx: Transaction, project: str, trial_id: str) -> StoredTrial:
    found = trial_rows.find(tx, project, trial_id)
    if found is None:
        raise NotFound(f"there is no trial {trial_id!r}")
    return found
