"""Histories from elsewhere: one finished experiment a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foretune.json_types import JsonObject
from foretune.states import TrialState
from foretune.wire import examples
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
    seconds: Annotated[list[Annotated[float, Field(ge=0, le=1e9)] | None], Field(max_length=1_000_000)] | None = None
    """How long each epoch took."""
    value: float | None = None
    """The final value; the best of it and of the curve counts."""
    state: TrialState = TrialState.COMPLETED
    """`FAILED` and `CANCELED` say nothing about the hyperparameters and are passed over."""

    @model_validator(mode="after")
    def _as_long_as_the_curve(self) -> HistoryTrial:
        if self.seconds is not None and self.seconds and len(self.seconds) != len(self.curve):
            raise ValueError(f"seconds has {len(self.seconds)} numbers, and the curve {len(self.curve)}: one an epoch")
        return self


class HistoryLine(Request):
    """A finished experiment."""

    model_config = Request.model_config | {"json_schema_extra": {"examples": [EXAMPLE]}}

    name: Name
    """What it is called where it comes from."""
    space: Space
    """What was searched."""
    metric: Name | Metric
    """A name, which tells whether less is better, or name and goal."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    """How long a trial could train."""
    features: Features = Field(default_factory=dict)
    """Numbers and words that describe the task."""
    trials: Annotated[list[HistoryTrial], Field(min_length=1, max_length=100_000)]
    """What was tried."""
    network: Name | None = None
    """The base network, where it is one of the service's."""
    dataset: Name | None = None
    """Id or name of the data set, where it is one of the service's."""
    fixed: Fixed = Field(default_factory=dict)
    """Hyperparameters that were not searched."""

    @model_validator(mode="after")
    def _within_their_epochs(self) -> HistoryLine:
        for number, trial in enumerate(self.trials):
            if len(trial.curve) > self.max_epochs:
                epochs = f"{len(trial.curve)} epochs, and max_epochs is {self.max_epochs}"
                raise ValueError(f"the curve of trial {number} (from 0) has {epochs}")
        return self


class TaskSpaceScores(Answer):
    """How a learned space of tasks did on families of tasks that it had not seen."""

    used: bool
    """Whether the version compares tasks in it: where it is better than both other ways, surely."""
    histories: int
    """It was learned from so many; it is learned anew when one in ten is new."""
    families: int
    """So many were left out in turn; a family is whatever shares its data."""
    regret: dict[Literal["unweighted", "features", "space"], list[float]]
    """After one and after five settings of a list, by what the histories weigh in it: all the same, by the features of
    their tasks, by the space. 0 is the best setting, 1 the median one.
    """


class FittedVersion(Answer):
    """A model of the project's histories."""

    version: int
    """From 1."""
    state: Literal["FITTING", "CHAMPION", "RETIRED", "REFUSED"]
    """`CHAMPION` is in use; `RETIRED` was, and can be again; `REFUSED` lost its replay or was rolled back."""
    parent: int | None
    """The version that was in use when this one was fitted."""
    experiments: int
    """Histories that it was fitted on."""
    trials: int
    """Their trials."""
    fitted: int
    """Histories of which the fit is done."""
    scores: dict[str, float]
    """Its replay on held-out histories, mean regret after one to three trials: 0 is the best of a history's trials, 1
    their median. `model`; `random`, which is also what TPE and a process without histories do for their first trials;
    `portfolio`, to which all histories are alike. Empty where too few histories could be held out.
    """
    space: TaskSpaceScores | None = None
    """None where there were too few histories to learn a space of tasks from."""
    reason: str | None
    """Why it was refused."""
    created_at: Timestamp
    """When its fit began."""
    finished_at: Timestamp | None
    """When it was judged."""
    promoted_at: Timestamp | None
    """When it was last put to use."""


class RollBack(Request):
    """Which version to use again."""

    model_config = Request.model_config | {"json_schema_extra": {"examples": [{"version": 1}]}}

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """One that was in use before."""


class MetaLearner(Answer):
    """What proposals and recommendations rest on."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.METALEARNER]}}

    version: int
    """The model in use; 0: none has been fitted yet."""
    kind: Literal["portfolio", "fitted"]
    """`portfolio`: no model has been fitted; the histories are heard all the same."""
    model: FittedVersion | None = None
    """The model in use."""
    versions: list[FittedVersion] = Field(default_factory=list)
    """The newest twenty, the newest first, those that were refused too."""
    starter: bool = False
    """Whether the starter history is heard beside the project's own; it is counted nowhere."""
    experiments: int
    """Histories of this project."""
    imported: int
    """How many of them were imported."""
    trials: int
    """Their trials."""
    updated_at: Timestamp | None = None
    """When the newest history was written."""
    waiting: bool
    """Whether a finished experiment has not become a history yet."""


class PriorHistory(Answer):
    """A history that counts for an experiment."""

    experiment: str
    """Its reference."""
    name: str
    """Its name."""
    similarity: float
    """From 0 to 1."""
    trials: int
    """How many it has."""
    best: float
    """The best value that was reached there."""
    metric: str
    """What was optimised there."""


class PriorGate(Answer):
    """How far the histories are believed, judged by the experiment's own results."""

    trust: float
    """From 0, shut, to 1, open: how far proposals follow the histories now."""
    agreement: float
    """From 0 to 1: how far the histories agree with each other on which settings are good."""
    results: int
    """So many results of the experiment have judged them."""
    says: str
    """The same in words."""


class Priors(Answer):
    """What an experiment learns from."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.PRIORS]}}

    experiment: str
    """Its id."""
    considered: int
    """Histories that the project had when the experiment was submitted."""
    space: Literal["features", "learned"] = "features"
    """What similarity rests on: what describes the tasks, or a space of tasks learned from the project's histories."""
    histories: list[PriorHistory]
    """Those that count, the most similar first."""
    gate: PriorGate | None = None
    """None where proposals come from the experiment's own results alone: without histories that say something of its
    space, and where those that do contradict each other.
    """
