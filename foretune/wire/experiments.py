"""Experiments: what is submitted, what is answered, what may be changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic.json_schema import SkipJsonSchema

from foretune.json_types import JsonValue
from foretune.metrics import Goal
from foretune.parameters import Parameter
from foretune.states import ExperimentState
from foretune.texts import nameable
from foretune.wire.base import Answer, Name, Request, SafeJson, Text, Timestamp, Title


class Mode(StrEnum):
    MANAGED = "managed"
    """Our workers train."""
    EXTERNAL = "external"
    """The client trains, and asks and tells."""


class Proposer(StrEnum):
    AUTO = "auto"
    RANDOM = "random"
    QUASIRANDOM = "quasirandom"
    GP = "gp"
    TPE = "tpe"


class Stopping(StrEnum):
    AUTO = "auto"
    NONE = "none"
    ASHA = "asha"
    MEDIAN = "median"


class Metric(Request):
    name: Name
    """Which number of a measurement counts, for example `val_accuracy`."""
    goal: Goal


class Budget(Request):
    """What an experiment may spend; it ends with the first limit reached."""

    max_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Epochs of one trial; the learning-rate schedule spans them."""
    max_total_epochs: Annotated[int, Field(ge=1, le=2**53)] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Wall-clock since the first trial started; time spent paused counts."""
    target: float | None = None
    """End as soon as the metric is at least this good."""


def _without_default(schema: dict[str, JsonValue]) -> None:
    """A field that may be absent, but not null."""
    schema.pop("default", None)


class BudgetPatch(Request):
    """Limits to raise. What is absent stays; null lifts a limit that need not be."""

    max_trials: Annotated[int, Field(ge=1, le=1_000_000)] | SkipJsonSchema[None] = Field(
        default=None, json_schema_extra=_without_default
    )
    """At least what it is. It cannot be lifted."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] | SkipJsonSchema[None] = Field(
        default=None, json_schema_extra=_without_default
    )
    """At least what it is. It cannot be lifted."""
    max_total_epochs: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """At least what it is; null lifts the limit."""
    max_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """At least what it is; null lifts the limit."""
    target: float | None = None
    """Harder than it is; null: go on whatever is reached."""

    @field_validator("max_trials", "max_epochs", mode="before")
    @classmethod
    def _a_number(cls, value: object) -> object:
        if value is None:
            raise ValueError("must be a number: this limit can be raised, not lifted; leave it out to keep it")
        return value


Labels = Annotated[
    dict[
        Annotated[Text, Field(min_length=1, max_length=63), AfterValidator(nameable)],
        Annotated[Text, Field(max_length=255), AfterValidator(nameable)],
    ],
    Field(max_length=32),
]
Fixed = Annotated[dict[Name, SafeJson], Field(max_length=100)]
Features = Annotated[dict[Name, Annotated[float | Text, Field()]], Field(max_length=200)]
Space = Annotated[list[Parameter], Field(min_length=1, max_length=100)]

EXAMPLE_MANAGED: dict[str, JsonValue] = {
    "name": "digits-mlp",
    "mode": "managed",
    "dataset": "digits",
    "network": "mlp",
    "metric": {"name": "val_accuracy", "goal": "maximize"},
    "space": [
        {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1.0, "log": True, "role": "learning_rate"},
        {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adamw"]},
        {"name": "momentum", "type": "float", "low": 0.0, "high": 0.99, "when": {"optimizer": ["sgd"]}},
        {"name": "width", "type": "int", "low": 16, "high": 512, "log": True},
        {"name": "lr_schedule", "type": "schedule"},
    ],
    "fixed": {"batch_size": 128},
    "budget": {"max_trials": 64, "max_epochs": 20},
    "parallelism": 8,
    "labels": {"team": "vision"},
}
EXAMPLE_EXTERNAL: dict[str, JsonValue] = {
    "name": "my-own-loop",
    "mode": "external",
    "metric": {"name": "val_loss", "goal": "minimize"},
    "space": [
        {"name": "lr", "type": "float", "low": 1e-5, "high": 0.1, "log": True},
        {"name": "layers", "type": "int", "low": 1, "high": 6},
    ],
    "budget": {"max_trials": 50, "max_epochs": 10},
    "features": {"rows": 50000, "modality": "image"},
}


class ExperimentRequest(Request):
    """A tuning job. Only `mode` and what it needs are required; the network has a default for the rest."""

    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [EXAMPLE_MANAGED, EXAMPLE_EXTERNAL]},
    }

    name: Title | None = None
    mode: Mode
    dataset: Name | None = None
    """Id or name of a dataset (managed)."""
    network: Name | None = None
    metric: Metric | None = None
    space: Space | None = None
    fixed: Fixed = Field(default_factory=dict)
    """Hyperparameters that are not searched."""
    budget: Budget = Field(default_factory=Budget)
    stopping: Stopping = Stopping.AUTO
    proposer: Proposer = Proposer.AUTO
    priors: Literal["auto", "none"] | Annotated[list[Name], Field(max_length=1000)] = "auto"
    parallelism: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Trials that may run at the same time (managed)."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    share_history: bool = True
    labels: Labels = Field(default_factory=dict)
    features: Features = Field(default_factory=dict)
    """Numbers and words that describe the task (external)."""


class ExperimentPatch(Request):
    """Raise a budget or widen the space; the rest stays as submitted."""

    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"budget": {"max_trials": 128}, "labels": {"team": "vision"}}]},
    }

    name: Title | None = None
    budget: BudgetPatch | None = None
    space: Space | None = None
    parallelism: Annotated[int, Field(ge=1, le=10_000)] | None = None
    labels: Labels | None = None


class LrSchedule(Answer):
    """A learning-rate schedule: peak, shape and one value for each epoch."""

    peak: float
    warmup_fraction: float
    plateau_fraction: float
    decay_exponent: float
    final_fraction: float
    values: list[float]


class Progress(Answer):
    trials: dict[str, int]
    """Number of trials in each state that occurs."""
    epochs: int
    seconds: float
    """Wall-clock since the first trial started, until now or the end."""
    fraction: float
    """Share of the budget that is spent, 0 … 1."""
    eta_seconds: float | None = None


class Best(Answer):
    trial: str
    number: int
    value: float
    epoch: int | None = None
    hyperparameters: dict[str, JsonValue]
    lr_schedule: LrSchedule | None = None


class Experiment(Answer):
    id: str
    name: str
    state: ExperimentState
    mode: Mode
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    reason: str | None = None
    """Why it failed or ended: the budget reached, an error."""
    dataset: str | None = None
    network: str | None = None
    metric: Metric
    space: list[Parameter]
    fixed: dict[str, JsonValue]
    budget: Budget
    stopping: Stopping
    proposer: Proposer
    priors: str | list[str]
    parallelism: int
    seed: int
    share_history: bool
    labels: dict[str, str]
    features: dict[str, float | str]
    progress: Progress
    best: Best | None = None
    last_event: int
    """Sequence number of the newest event."""
