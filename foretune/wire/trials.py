"""Trials: settings, leases, measurements and decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from foretune.json_types import JsonValue
from foretune.states import TrialState
from foretune.wire.base import Answer, Name, Reason, Request, Timestamp
from foretune.wire.experiments import LrSchedule


class Decision(StrEnum):
    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


class Prediction(Answer):
    """What the model expects the metric to become: the median and an 80 % interval."""

    metric: str
    median: float
    low: float
    high: float


class Lease(Answer):
    """The right to report on a trial, until it expires. Every report or heartbeat extends it."""

    token: str
    expires_at: Timestamp


class SuggestionRequest(Request):
    model_config = Request.model_config | {"json_schema_extra": {"examples": [{"count": 1, "wait_seconds": 2.0}]}}

    count: Annotated[int, Field(ge=1, le=256)] = 1
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    """How long to wait for a proposal that has seen every result told so far."""


class Suggestion(Answer):
    id: str
    number: int
    hyperparameters: dict[str, JsonValue]
    lr_schedule: LrSchedule | None = None
    origin: str
    """`portfolio`, `transfer`, `gp`, `tpe`, `quasirandom`, `random`, or `fallback` when the model was not ready."""
    predicted: Prediction | None = None
    lease: Lease


class Suggestions(Answer):
    trials: list[Suggestion]


class MeasurementReport(Request):
    epoch: Annotated[int, Field(ge=1, le=1_000_000)]
    value: float | None
    """The experiment's metric after this epoch; null says that it is not a number."""
    seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    metrics: Annotated[dict[Name, float], Field(max_length=100)] = Field(default_factory=dict)


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
    measurements: Annotated[list[MeasurementReport], Field(min_length=1, max_length=1000)]


class MeasurementsAnswer(Answer):
    decision: Decision
    lr_factor: float = 1.0
    lease: Lease


class HeartbeatRequest(Request):
    model_config = Request.model_config | {"json_schema_extra": {"examples": [{"lease": "1.Zq3vJx0c8yHs2m4T"}]}}

    lease: Annotated[str, Field(min_length=1, max_length=100)]


class HeartbeatAnswer(Answer):
    lease: Lease


class CompleteRequest(Request):
    """Ends a trial: with its final `value`, or with an `outcome` and a reason."""

    model_config = Request.model_config | {
        "json_schema_extra": {
            "examples": [
                {"lease": "1.Zq3vJx0c8yHs2m4T", "value": 0.9},
                {"lease": "1.Zq3vJx0c8yHs2m4T", "outcome": "infeasible", "reason": "out of memory"},
            ]
        }
    }

    lease: Annotated[str, Field(min_length=1, max_length=100)]
    value: float | None = None
    outcome: Literal["completed", "infeasible", "failed"] = "completed"
    reason: Reason | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompleteRequest:
        if self.outcome != "completed" and self.value is not None:
            raise ValueError(f"a trial with the outcome {self.outcome!r} has no value: leave it out")
        return self


class Measurement(Answer):
    epoch: int
    value: float | None
    seconds: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    created_at: Timestamp


class Trial(Answer):
    id: str
    experiment: str
    number: int
    """From 1, in order of creation."""
    state: TrialState
    reason: str | None = None
    hyperparameters: dict[str, JsonValue]
    lr_schedule: LrSchedule | None = None
    origin: str
    predicted: Prediction | None = None
    attempts: int
    """Executions so far; grows when a worker dies, and when a paused trial goes on."""
    epochs: int
    value: float | None = None
    """The final value; while running, the last one."""
    best_value: float | None = None
    best_epoch: int | None = None
    seconds: float
    """Training time, summed over the measurements."""
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
