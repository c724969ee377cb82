"""Recommendations, histories and what the meta-learner knows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foretune.json_types import JsonValue
from foretune.wire import examples
from foretune.wire.base import Answer, Name, Request, Timestamp
from foretune.wire.experiments import Features, LrSchedule, Metric, Space
from foretune.wire.trials import Prediction


class RecommendationRequest(Request):
    """A task, as a dataset or as features, and what to tune: a network or a space."""

    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"dataset": "digits", "network": "mlp", "max_epochs": 20, "count": 3}]},
    }

    dataset: Name | None = None
    """Id or name of the data set; instead of `features`."""
    features: Features | None = None
    """Numbers and words that describe the task; instead of `dataset`."""
    network: Name | None = None
    """Name of the network to tune."""
    space: Space | None = None
    """What to tune; the network's default space when absent."""
    metric: Metric | None = None
    """What is optimised; the network's own when absent."""
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    """How long a trial would train."""
    count: Annotated[int, Field(ge=1, le=50)] = 3
    """How many settings."""

    @model_validator(mode="after")
    def _one_task(self) -> RecommendationRequest:
        if (self.dataset is None) == (self.features is None):
            raise ValueError("give either dataset or features")
        if self.network is None and self.space is None:
            raise ValueError("give network, or space")
        return self


class Evidence(Answer):
    """A history that speaks for a setting."""

    experiment: str
    """Reference of the history."""
    similarity: float
    """From 0 to 1: how like its task is."""
    best: float
    """The best value that was reached there."""


class Recommendation(Answer):
    """One setting."""

    rank: int
    """From 1, the best first."""
    hyperparameters: dict[str, JsonValue]
    """What to train with."""
    lr_schedule: LrSchedule | None = None
    """The learning rate by epoch; null where none is scheduled."""
    predicted: Prediction | None = None
    """What the metric is expected to become."""
    origin: str
    """`portfolio`, `transfer`, `best_seen`, `best_predicted` or `default`."""
    trial: str | None = None
    """The trial that ran with these hyperparameters, if one did."""
    evidence: list[Evidence] = Field(default_factory=list)
    """The histories that speak for it, the likest first."""


class ModelVersion(Answer):
    """The model that a recommendation rests on."""

    version: int
    """The model in use; 0: none has been fitted yet."""
    experiments: int
    """Histories that it rests on."""
    trials: int
    """Their trials."""
    promoted_at: Timestamp | None = None
    """Since when it has been in use."""


class Recommendations(Answer):
    """What to train with, and why."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.RECOMMENDATIONS]}}

    id: str
    """`rec_…`"""
    recommendations: list[Recommendation]
    """The best first."""
    confidence: Literal["none", "low", "high"]
    """How far the histories, or the results, bear it."""
    model: ModelVersion
    """What it rests on."""


class ImportFault(Answer):
    """A line that was refused."""

    line: int
    """From 1."""
    code: str
    """The stable code of the error."""
    detail: str
    """What is wrong with the line."""


class ImportAnswer(Answer):
    """What became of each line."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.IMPORTED]}}

    imported: int
    """Histories that are new."""
    duplicates: int
    """Those that were known already."""
    errors: list[ImportFault]
    """Lines that were refused; they spoil no other."""
