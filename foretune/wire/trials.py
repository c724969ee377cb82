"""Trials: settings, leases, measurements and decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from foretune.json_types import JsonValue
from foretune.states import TrialState
from foretune.wire import examples
from foretune.wire.base import Answer, Name, Reason, Request, Timestamp
from foretune.wire.experiments import LrSchedule


class Decision(StrEnum):
    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


class Prediction(Answer):
    """What the model expects the metric to become: the median and an 80 % interval."""

    metric: str
    """Its name."""
    median: float
    """As likely to be missed as to be beaten."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class Lease(Answer):
    """The right to report on a trial, until it expires. Every report or heartbeat extends it."""

    token: str
    """What every report on the trial must carry."""
    expires_at: Timestamp
    """When the trial is freed for somebody else, unless a report or heartbeat comes before."""


class SuggestionRequest(Request):
    model_config = Request.model_config | {"json_schema_extra": {"examples": [{"count": 1, "wait_seconds": 2.0}]}}

    count: Annotated[int, Field(ge=1, le=256)] = 1
    """How many trials; fewer come when the budget has no more."""
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    """How long to wait for a proposal that has seen every result told so far."""


class Suggestion(Answer):
    """A trial to train."""

    id: str
    """`tri_…`"""
    number: int
    """From 1, in order of creation."""
    hyperparameters: dict[str, JsonValue]
    """What to train with: the active parameters of the space."""
    lr_schedule: LrSchedule | None = None
    """The learning rate by epoch, where the space has a schedule."""
    origin: str
    """`portfolio`, `transfer`, `gp`, `tpe`, `quasirandom`, `random`, or `fallback` when the model was not ready."""
    predicted: Prediction | None = None
    """What the metric is expected to become; null where nothing is known."""
    lease: Lease
    """The right to report on it."""


class Suggestions(Answer):
    """Trials that are leased to whoever asked."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.SUGGESTIONS]}}

    trials: list[Suggestion]
    """At least one; of `next` none where there is nothing to get."""


class MeasurementReport(Request):
    """One epoch."""

    epoch: Annotated[int, Field(ge=1, le=1_000_000)]
    """From 1. An epoch that was told before changes nothing."""
    value: float | None
    """The experiment's metric after this epoch; null says that it is not a number."""
    seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """How long the epoch took."""
    metrics: Annotated[dict[Name, float], Field(max_length=100)] = Field(default_factory=dict)
    """Other numbers of this epoch; kept and exported."""


class MeasurementsRequest(Request):
    model_config = Request.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "lease": "1.Zq3vJx0c8yHs2m4T",
                    "measurements": [{"epoch": 1, "value": 0.81, "seconds": 3.2, "metrics": {"train_loss": 0.44}}],
                }
            ]
        }
    }

    lease: Annotated[str, Field(min_length=1, max_length=100)]
    """The token of the trial's lease."""
    measurements: Annotated[list[MeasurementReport], Field(min_length=1, max_length=1000)]
    """One or more epochs."""


class MeasurementsAnswer(Answer):
    """What to do with the trial now."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.MEASURED]}}

    decision: Decision
    """Whether to go on with the trial."""
    lr_factor: float = 1.0
    """Multiply the scheduled learning rate by it from now on."""
    lease: Lease
    """The same lease, extended."""


class HeartbeatRequest(Request):
    model_config = Request.model_config | {"json_schema_extra": {"examples": [{"lease": "1.Zq3vJx0c8yHs2m4T"}]}}

    lease: Annotated[str, Field(min_length=1, max_length=100)]
    """The token of the trial's lease."""


class HeartbeatAnswer(Answer):
    """The lease goes on."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [{"lease": examples.LEASE}]}}

    lease: Lease
    """The same lease, extended."""


class CompleteRequest(Request):
    """Ends a trial: with its final `value`, or with an `outcome` and a reason."""

    model_config = Request.model_config | {
        "json_schema_extra": {
            "examples": [
                {"lease": "1.Zq3vJx0c8yHs2m4T", "value": 0.9},
                {"lease": "1.Zq3vJx0c8yHs2m4T", "outcome": "infeasible", "reason": "out of memory"},
                {"lease": "1.Zq3vJx0c8yHs2m4T", "value": 0.9, "next": {"count": 1, "wait_seconds": 2.0}},
            ]
        }
    }

    lease: Annotated[str, Field(min_length=1, max_length=100)]
    """The token of the trial's lease."""
    value: float | None = None
    """The final value; the last measured one when absent."""
    outcome: Literal["completed", "infeasible", "failed"] = "completed"
    """`infeasible`: this setting cannot be trained. `failed`: something else went wrong."""
    reason: Reason | None = None
    """Why, for whoever reads it."""
    next: SuggestionRequest | None = None
    """Asks for the experiment's next trials, once this one has ended: a loop's two calls in one."""

    @model_validator(mode="after")
    def _consistent(self) -> CompleteRequest:
        if self.outcome != "completed" and self.value is not None:
            raise ValueError(f"a trial with the outcome {self.outcome!r} has no value: leave it out")
        return self


class Measurement(Answer):
    """What one epoch reported."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.MEASUREMENT]}}

    epoch: int
    """From 1."""
    value: float | None
    """The metric after it; null where it was no number."""
    seconds: float | None = None
    """How long it took."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Other numbers of this epoch."""
    created_at: Timestamp
    """When it was told."""


class Trial(Answer):
    """One setting, and what came of it."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.TRIAL]}}

    id: str
    """`tri_…`"""
    experiment: str
    """Id of its experiment."""
    number: int
    """From 1, in order of creation."""
    state: TrialState
    """Where it stands."""
    reason: str | None = None
    """Why it ended as it did."""
    hyperparameters: dict[str, JsonValue]
    """What it is trained with: the active parameters of the space."""
    lr_schedule: LrSchedule | None = None
    """Its learning rate by epoch; null where none is scheduled."""
    origin: str
    """What proposed it, as in a suggestion."""
    predicted: Prediction | None = None
    """What was expected of it before it ran."""
    attempts: int
    """Executions so far; grows when a worker dies, and when a paused trial goes on."""
    epochs: int
    """Epochs that it has trained."""
    value: float | None = None
    """The final value; while running, the last one."""
    best_value: float | None = None
    """The best of its epochs."""
    best_epoch: int | None = None
    """When that was."""
    seconds: float
    """Training time, summed over the measurements."""
    created_at: Timestamp
    """When it was proposed."""
    started_at: Timestamp | None = None
    """When it first ran."""
    finished_at: Timestamp | None = None
    """When it ended."""


class Completed(Trial):
    """A trial that has ended, and what its client asked for next."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.COMPLETED]}}

    next: Suggestions | None = None
    """Answers the request's `next`: no trials when there are none to get now, and asking for suggestions says why."""
