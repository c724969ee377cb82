"""Histories from elsewhere: one finished experiment a line."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretune.json_types import JsonObject
from foretune.states import TrialState
from foretune.wire.base import Answer, Name, Request, SafeJson, Timestamp
from foretune.wire.experiments import Features, Fixed, Metric, Space

EXAMPLE: JsonObject = {
    "name": "resnet on flowers",
    "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 1.0, "log": True}],
    "metric": "val_accuracy",
    "max_epochs": 3,
    "features": {"rows": 8189, "classes": 102, "modality": "image"},
    "trials": [
        {"hyperparameters": {"lr": 0.01}, "curve": [0.4, 0.6, 0.7], "value": 0.7, "state": "COMPLETED"},
        {"hyperparameters": {"lr": 0.9}, "curve": [0.01, None], "state": "INFEASIBLE"},
    ],
}


class HistoryTrial(Request):
    """One trial of a history. Without any value it counts as diverged."""

    hyperparameters: Annotated[dict[Name, SafeJson], Field(max_length=100)]
    """The active parameters of the space, a schedule's shape under the name of its parameter."""
    curve: Annotated[list[float | None], Field(max_length=1_000_000)] = Field(default_factory=list)
    """The metric by epoch, from the first; null where it was no number."""
    seconds: Annotated[list[float | None], Field(max_length=1_000_000)] | None = None
    value: float | None = None
    state: TrialState = TrialState.COMPLETED
    """`FAILED` and `CANCELED` say nothing about the hyperparameters and are passed over."""


class HistoryLine(Request):
    """A finished experiment."""

    model_config = Request.model_config | {"json_schema_extra": {"examples": [EXAMPLE]}}

    name: Name
    space: Space
    metric: Name | Metric
    """A name, which tells whether less is better, or name and goal."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    features: Features = Field(default_factory=dict)
    trials: Annotated[list[HistoryTrial], Field(min_length=1, max_length=100_000)]
    network: Name | None = None
    """The base network, where it is one of the service's."""
    dataset: Name | None = None
    """Id or name of the data set, where it is one of the service's."""
    fixed: Fixed = Field(default_factory=dict)
    """Hyperparameters that were not searched."""


class MetaLearner(Answer):
    """What proposals rest on."""

    version: int
    """0: no model has been fitted; proposals come from the portfolio of histories."""
    kind: str
    experiments: int
    """Histories of this project."""
    imported: int
    """How many of them were imported."""
    trials: int
    updated_at: Timestamp | None = None
    """When the newest history was written."""
    waiting: bool
    """Whether a finished experiment has not become a history yet."""


class PriorHistory(Answer):
    """A history that counts for an experiment."""

    experiment: str
    name: str
    similarity: float
    """From 0 to 1."""
    trials: int
    best: float
    metric: str


class PriorGate(Answer):
    """How far the histories are believed, judged by the experiment's own results."""

    trust: float
    """From 0, shut, to 1, open: how far proposals follow the histories now."""
    agreement: float
    """From 0 to 1: how far the histories agree with each other on which settings are good."""
    results: int
    """So many results of the experiment have judged them."""
    says: str


class Priors(Answer):
    """What an experiment learns from."""

    experiment: str
    considered: int
    """Histories that the project had when the experiment was submitted."""
    histories: list[PriorHistory]
    """Those that count, the most similar first."""
    gate: PriorGate | None = None
    """None where proposals come from the experiment's own results alone: without histories that say something of its
    space, and where those that do contradict each other.
    """
