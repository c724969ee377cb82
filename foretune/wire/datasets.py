"""Datasets and networks as clients see them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Parameter
from foretune.wire import examples
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
    """A data set that can be trained on."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.DATASET]}}

    id: str
    """`dst_…`"""
    name: str
    """Unique in the project."""
    task: Task
    """What can be learned from it."""
    modality: str
    """`tabular`, `image`, `sequence` or `text`."""
    views: list[str]
    """The modalities that networks may read it as: an image is also a table of its pixels."""
    rows: int
    """How many examples it has."""
    features: int
    """How many numbers describe an example."""
    classes: int | None = None
    """Of a classification."""
    target: str | None = None
    """The column that is predicted."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    size_bytes: int
    """Of the file."""
    builtin: bool
    """Whether it came with the service; then it cannot be deleted."""
    created_at: Timestamp
    """When it was uploaded."""
    meta_features: dict[str, float | str] = Field(default_factory=dict)
    """Numbers that describe the data to the meta-learner; `sample` holds a few rows as its encoder reads them."""
    warnings: list[str] = Field(default_factory=list)
    """What was noticed or left out while reading the file; after an upload also that it has another name by now."""


class ComparedFeature(Answer):
    """One feature that two tasks have in common."""

    feature: str
    """Its name."""
    here: float | str
    """Its value for the data set that was asked for."""
    there: float | str
    """Its value for the prior task."""
    difference: float
    """On the scale on which tasks are compared: orders of magnitude for counts, 1 for different words."""


class Neighbour(Answer):
    """A prior task, and what makes it like the data set."""

    experiment: str
    """The reference of its history."""
    name: str
    """Its name."""
    dataset: str | None = None
    """The id of its data set, where it is one of the service's."""
    network: str | None = None
    """What was tuned there, where it is one of the service's."""
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
    """What was optimised there."""
    best: float | None = None
    """The best value that was reached there."""
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
    """Id of the data set that was asked for."""
    space: Literal["features", "learned"]
    """What the similarity rests on: `features`, what describes the data, or `learned`, a space of tasks that the model
    in use has learned.
    """
    considered: int
    """Histories that there were to compare with."""
    neighbours: list[Neighbour]
    """The nearest first."""


class DatasetFault(Answer):
    """Why a file could not be read."""

    code: str
    """The stable code of the error."""
    message: str
    """What is wrong with the file."""


class PendingDataset(Answer):
    """A data set that cannot be used: its file is still being read, or could not be."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.PENDING_DATASET]}}

    id: str
    """`dst_…`"""
    name: str
    """Its name, which is free again when it failed."""
    state: DatasetState
    """`PARSING`: ask again in a moment. `FAILED`: see `error`."""
    error: DatasetFault | None = None
    """Why it failed."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    size_bytes: int
    """Of the file."""
    created_at: Timestamp
    """When it was uploaded."""


class DatasetUpload(Request):
    """The fields beside `file` of an upload."""

    name: Name | None = None
    """Unique in the project; the file's name without its ending when absent."""
    target: Name | None = None
    """The column to predict, for CSV and Parquet; the last one when absent."""
    task: Task | None = None
    """Guessed when absent."""


class Network(Answer):
    """What can be trained."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.NETWORK]}}

    name: str
    """As an experiment names it."""
    description: str
    """What it is, in a line."""
    tasks: list[Task]
    """What it can learn."""
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
