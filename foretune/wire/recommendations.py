"""Recommendations, histories and what the meta-learner knows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foretune.json_types import JsonValue
from foretune.wire.base import Answer, Name, Request, Timestamp
from foretune.wire.experiments import Features, LrSchedule, Metric, Space
from foretune.wire.trials import Prediction


class RecommendationRequest(Request):
    """A task, as a dataset or as features, and what to tune: a network or a space."""

    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"dataset": "digits", "network": "mlp", "max_epochs": 20, "count": 3}]},
    }

    dataset: Name | None = None
    features: Features | None = None
    network: Name | None = None
    space: Space | None = None
    metric: Metric | None = None
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    count: Annotated[int, Field(ge=1, le=50)] = 3

    @model_validator(mode="after")
    def _one_task(self) -> RecommendationRequest:
        if (self.dataset is None) == (self.features is None):
            raise ValueError("give either dataset or features")
        if self.network is None and self.space is None:
            raise ValueError("give network, or space")
        return self


class Evidence(Answer):
    experiment: str
    similarity: float
    best: float


class Recommendation(Answer):
    rank: int
    hyperparameters: dict[str, JsonValue]
    lr_schedule: LrSchedule | None = None
    predicted: Prediction | None = None
    origin: str
    """`portfolio`, `transfer`, `best_seen`, `best_predicted` or `default`."""
    trial: str | None = None
    """The trial that ran with these hyperparameters, if one did."""
    evidence: list[Evidence] = Field(default_factory=list)


class ModelVersion(Answer):
    version: int
    experiments: int
    trials: int
    promoted_at: Timestamp | None = None


class Recommendations(Answer):
    id: str
    recommendations: list[Recommendation]
    confidence: Literal["none", "low", "high"]
    model: ModelVersion


class ImportFault(Answer):
    line: int
    code: str
    detail: str


class ImportAnswer(Answer):
    imported: int
    duplicates: int
    errors: list[ImportFault]
