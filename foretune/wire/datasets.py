"""Datasets and networks as clients see them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from foretune.json_types import JsonObject, JsonValue
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
    """What was noticed or left out while reading the file; after an upload also that it has another name by now."""


class ComparedFeature(Answer):
    """One feature that two tasks have in common."""

    feature: str
    here: float | str
    there: float | str
    difference: float
    """On the scale on which tasks are compared: orders of magnitude for counts, 1 for different words."""


class Neighbour(Answer):
    """A prior task, and what makes it like the data set."""

    experiment: str
    """The reference of its history."""
    name: str
    dataset: str | None = None
    """The id of its data set, where it is one of the service's."""
    network: str | None = None
    similarity: float
    """From 0 to 1, as the space in use has it; 1 for the same data."""
    distance: float | None = None
    """In a learned space, how far its points are apart; else the root mean square difference of the features in common.
    Null where there is none.
    """
    alike: list[ComparedFeature]
    """The features that are most alike, the most first."""
    unlike: list[ComparedFeature]
    """Those that differ most; none that are the same."""
    metric: str
    best: float | None = None
    hyperparameters: dict[str, JsonValue]
    """What reached the best value."""


_NEIGHBOUR: JsonObject = {
    "experiment": "exp_7d2k0m3v5x8z1b4c6f9h0j",
    "name": "digits-mlp",
    "dataset": "dst_5c1v8n3b6m9k2j4h7g0f1d",
    "network": "mlp",
    "similarity": 0.61,
    "distance": 0.18,
    "alike": [{"feature": "classes", "here": 10.0, "there": 10.0, "difference": 0.0}],
    "unlike": [{"feature": "rows", "here": 1797.0, "there": 60000.0, "difference": 1.52}],
    "metric": "val_accuracy",
    "best": 0.984,
    "hyperparameters": {"learning_rate": 0.004, "width": 256},
}


class Neighbours(Answer):
    """The prior tasks most like a data set."""

    model_config = Answer.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "dataset": "dst_0a9s8d7f6g5h4j3k2l1z0x",
                    "space": "features",
                    "considered": 12,
                    "neighbours": [_NEIGHBOUR],
                }
            ]
        },
    }

    dataset: str
    space: Literal["features", "learned"]
    """What the similarity rests on: `features`, what describes the data, or `learned`, a space of tasks that the model
    in use has learned.
    """
    considered: int
    """Histories that there were to compare with."""
    neighbours: list[Neighbour]
    """The nearest first."""


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
