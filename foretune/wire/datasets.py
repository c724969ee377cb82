"""Datasets and networks as clients see them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from foretune.json_types import JsonValue
from foretune.parameters import Parameter
from foretune.wire.base import Answer, Name, Request, Timestamp


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    LANGUAGE_MODELLING = "language-modelling"


class DatasetState(StrEnum):
    PARSING = "PARSING"
    """A worker reads the file."""
    READY = "READY"
    FAILED = "FAILED"
    """The file is not a data set; its name is free again."""


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
    meta_features: dict[str, float | str] = Field(default_factory=dict)
    """Numbers that describe the data to the meta-learner; `sample` holds a few rows as its encoder reads them."""
    warnings: list[str] = Field(default_factory=list)
    """What was noticed or left out while reading the file."""


class DatasetFault(Answer):
    code: str
    message: str


class PendingDataset(Answer):
    """A data set that cannot be used: its file is still being read, or could not be."""

    id: str
    name: str
    state: DatasetState
    error: DatasetFault | None = None
    sha256: str
    size_bytes: int
    created_at: Timestamp


class DatasetUpload(Request):
    """The fields beside `file` of an upload."""

    name: Name | None = None
    """Unique in the project; the file's name without its ending when absent."""
    target: Name | None = None
    """The column to predict, for CSV and Parquet; the last one when absent."""
    task: Task | None = None
    """Guessed when absent."""


class Network(Answer):
    name: str
    description: str
    tasks: list[Task]
    views: list[str]
    """The modalities that it reads, the preferred one first."""
    space: list[Parameter]
    """The default search space."""
    limits: list[Parameter]
    """What each hyperparameter may be at all; a search may go beyond `space`, but not beyond these."""
    defaults: dict[str, JsonValue]
    """What an expert would try first."""
    metrics: dict[str, list[str]] = Field(default_factory=dict)
    """The metrics it reports, by task; the first one is the default."""
