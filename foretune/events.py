"""The event log of an experiment: the types, and what their data holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from foretune.json_types import JsonObject


class EventType(StrEnum):
    EXPERIMENT_STATE = "experiment.state"
    """`{"state", "reason"}`"""
    TRIAL_CREATED = "trial.created"
    """`{"trial", "number", "hyperparameters", "lr_schedule", "origin", "predicted"}`"""
    TRIAL_STATE = "trial.state"
    """`{"trial", "number", "state", "reason", "attempts", "value"}`"""
    TRIAL_MEASUREMENT = "trial.measurement"
    """`{"trial", "number", "epoch", "value", "seconds", "metrics"}`"""
    EXPERIMENT_BEST = "experiment.best"
    """`{"trial", "number", "value", "epoch"}`"""
    WORKER_LOST = "worker.lost"
    """`{"trial", "number", "worker", "attempts"}`: its lease ran out; the trial waits for another worker."""


@dataclass(frozen=True)
class Event:
    """One entry; `sequence` counts from 1 without gaps within an experiment."""

    sequence: int
    type: EventType
    data: JsonObject
