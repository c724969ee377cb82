"""Datasets and networks as clients see them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from foretune.json_types import JsonValue
from foretune.parameters import Parameter
from foretune.wire.base import Answer, Timestamp


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    LANGUAGE_MODELLING = "language-modelling"


class Dataset(Answer):
    id: str
    name: str
    task: Task
    modality: str
    """`tabular`, `image`, `sequence` or `text`."""
    views: list[str]
    """The modalities that networks may read it as: an image is also a table of its pixels."""
    rows: int
    features: int
    classes: int | None = None
    target: str | None = None
    sha256: str
    size_bytes: int
    builtin: bool
    created_at: Timestamp
    meta_features: dict[str, float] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    """What was noticed or left out while reading the file."""


class Network(Answer):
    name: str
    description: str
    tasks: list[Task]
    view: str | list[str]
    """The modality, or modalities, that it reads."""
    space: list[Parameter]
    """The default search space."""
    defaults: dict[str, JsonValue]
    """What an expert would try first."""
    metrics: dict[str, list[str]] = Field(default_factory=dict)
    """The metrics it reports, by task; the first one is the default."""
