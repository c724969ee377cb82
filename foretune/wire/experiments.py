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
from foretune.wire import examples
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
    """A number that is measured, and which way it is better."""

    name: Name
    """Which number of a measurement counts, for example `val_accuracy`."""
    goal: Goal
    """Which way is better."""


class Budget(Request):
    """What an experiment may spend; it ends with the first limit reached."""

    max_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Trials that may begin, those that fail or diverge included."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Epochs of one trial; the learning-rate schedule spans them."""
    max_total_epochs: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Epochs of all trials together; null: any number."""
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
    """What to call it; not unique. Made of dataset and network when absent."""
    mode: Mode
    """Who trains: `managed`, our workers, or `external`, the client."""
    dataset: Name | None = None
    """Id or name of a dataset (managed)."""
    network: Name | None = None
    """Name of a network of `GET /v1/networks` (managed)."""
    metric: Metric | None = None
    """What is optimised; the first metric that the network reports here when absent (managed)."""
    space: Space | None = None
    """What is searched; the network's default space when absent (managed)."""
    fixed: Fixed = Field(default_factory=dict)
    """Hyperparameters that are not searched."""
    budget: Budget = Field(default_factory=Budget)
    """When to end; needed where the client trains."""
    stopping: Stopping = Stopping.AUTO
    """How trials without hope end early; `none` trains each to the end."""
    proposer: Proposer = Proposer.AUTO
    """What proposes settings: `auto` learns from histories and results."""
    priors: Literal["auto", "none"] | Annotated[list[Name], Field(max_length=1000)] = "auto"
    """Whose results are learned from: `auto`, all histories of the project; `none`; or ids of experiments."""
    parallelism: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Trials that may run at the same time (managed)."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """The same seed and history give the same proposals."""
    share_history: bool = True
    """Whether later experiments of the project learn from it."""
    labels: Labels = Field(default_factory=dict)
    """Words to filter lists by."""
    features: Features = Field(default_factory=dict)
    """Numbers and words that describe the task (external)."""


class ExperimentPatch(Request):
    """Raise a budget or widen the space; the rest stays as submitted."""

    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"budget": {"max_trials": 128}, "labels": {"team": "vision"}}]},
    }

    name: Title | None = None
    """A new name."""
    budget: BudgetPatch | None = None
    """Limits to raise."""
    space: Space | None = None
    """The same parameters in the same order, with wider ranges or more choices at the end."""
    parallelism: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Trials that may run at the same time from now on (managed)."""
    labels: Labels | None = None
    """New labels, in place of all that there are."""


class LrSchedule(Answer):
    """A learning-rate schedule: peak, shape and one value for each epoch."""

    peak: float
    """The highest learning rate."""
    warmup_fraction: float
    """Share of the epochs in which it rises from 0 to the peak."""
    plateau_fraction: float
    """Share of the epochs in which it stays there."""
    decay_exponent: float
    """The shape of the fall: 1 is a straight line."""
    final_fraction: float
    """Where it ends, as a share of the peak."""
    values: list[float]
    """One learning rate for each epoch."""


class Progress(Answer):
    """How far an experiment is."""

    trials: dict[str, int]
    """Number of trials in each state that occurs."""
    epochs: int
    """Epochs of all trials together."""
    seconds: float
    """Wall-clock since the first trial started, until now or the end."""
    fraction: float
    """Share of the budget that is spent, 0 … 1."""
    eta_seconds: float | None = None
    """How long it will still take, as far as one can tell; null unless it runs."""


class Best(Answer):
    """The best trial so far."""

    trial: str
    """Its id."""
    number: int
    """Its number in the experiment."""
    value: float
    """The metric at its best."""
    epoch: int | None = None
    """When that was; null for a value told without an epoch."""
    hyperparameters: dict[str, JsonValue]
    """What it was trained with."""
    lr_schedule: LrSchedule | None = None
    """Its learning rate by epoch; null where none is scheduled."""


class Experiment(Answer):
    """A tuning job as it stands."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.EXPERIMENT]}}

    id: str
    """`exp_…`"""
    name: str
    """As submitted, or made of dataset and network."""
    state: ExperimentState
    """Where it stands; `COMPLETED`, `FAILED` and `CANCELED` are final."""
    mode: Mode
    """Who trains."""
    created_at: Timestamp
    """When it was submitted."""
    started_at: Timestamp | None = None
    """When its first trial began."""
    finished_at: Timestamp | None = None
    """When it reached a final state."""
    reason: str | None = None
    """Why it failed or ended: the budget reached, an error."""
    dataset: str | None = None
    """Name of the data set (managed)."""
    network: str | None = None
    """Name of the network (managed)."""
    metric: Metric
    """What is optimised."""
    space: list[Parameter]
    """What is searched, without what is fixed."""
    fixed: dict[str, JsonValue]
    """Hyperparameters that are not searched."""
    budget: Budget
    """What it may spend."""
    stopping: Stopping
    """How trials without hope end early."""
    proposer: Proposer
    """What proposes settings."""
    priors: str | list[str]
    """Whose results it learns from."""
    parallelism: int
    """Trials that may run at the same time (managed)."""
    seed: int
    """What makes its proposals repeatable."""
    share_history: bool
    """Whether later experiments learn from it."""
    labels: dict[str, str]
    """Words to filter lists by."""
    features: dict[str, float | str]
    """What describes the task (external)."""
    progress: Progress
    """How far it is."""
    best: Best | None = None
    """The best trial so far; null while none has given a value."""
    last_event: int
    """Sequence number of the newest event."""
