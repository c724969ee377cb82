"""The last step before training: split, encode, standardise, as torch tensors on the CPU.

Axes: N rows, D encoded columns, C channels, H height, W width, T steps, F features.

    view       train_x, val_x            input_shape
    tabular    (N, D) float32            (D,)
    image      (N, C, H, W) float32      (C, H, W)
    sequence   (N, T, F) float32         (T, F)
    text       (N,) int64 token ids      ()            windows of context are cut by the trainer

y is (N,): int64 class ids, or float32 standardised targets; for a text it is empty, (0,) int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretune.errors import InvalidExperiment
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset, Modality
from workers.datasets.encode import Floats, fit_standardization, fit_table
from workers.datasets.split import Split, split
from workers.datasets.views import flatten, image_rows, views

__all__ = ["PREPARATION_VERSION", "PreparedData", "prepare", "prepared_key", "views"]

PREPARATION_VERSION = 1
"""Raise it when the same data set would be prepared differently: cached tensors are then made anew."""


@dataclass(frozen=True, eq=False)
class PreparedData:
    """What a trainer needs of a data set; see the module docstring for shapes.

    `output_size` is the number of classes, 1 for regression, the vocabulary size for a text. A prediction p for a
    regression means `p * target_scale + target_mean` in original units (`in_original_units`); for other tasks the
    two are 1 and 0. `vocabulary_size` is None unless the data are a text.
    """

    key: str
    task: Task
    view: Modality
    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    input_shape: tuple[int, ...]
    output_size: int
    target_mean: float = 0.0
    target_scale: float = 1.0
    vocabulary_size: int | None = None

    def in_original_units(self, predictions: Tensor) -> Tensor:  # any shape -> the same
        """Standardised regression targets or predictions in the units of the file."""
        return predictions * self.target_scale + self.target_mean


def prepared_key(content_hash: str, seed: int, view: Modality) -> str:
    """Names what `prepare` returns: equal keys, equal tensors. Fit for a file name."""
    return f"{content_hash}-{view}-seed{seed}-v{PREPARATION_VERSION}"


def prepare(dataset: Dataset, seed: int, view: Modality) -> PreparedData:
    """Splits by `seed` and encodes for `view`; every statistic comes from the training part alone.

    Raises InvalidExperiment when the data set cannot be seen that way.
    """
    if view not in views(dataset):
        raise InvalidExperiment(
            f"data set {dataset.name!r} ({dataset.modality}) cannot be read as {view}; "
            f"it can be read as {', '.join(views(dataset))}"
        )
    parts = split(dataset, seed)
    key = prepared_key(dataset.content_hash, seed, view)
    if dataset.modality == "text":
        return _prepare_text(dataset, parts, key)
    train_x, val_x = _inputs(dataset, parts, view)
    train_y, val_y = dataset.y[parts.train], dataset.y[parts.validation]
    mean, scale = 0.0, 1.0
    if dataset.task is Task.REGRESSION:
        mean, scale = _target_statistics(train_y)
        train_y = ((train_y.astype(np.float64) - mean) / scale).astype(np.float32)
        val_y = ((val_y.astype(np.float64) - mean) / scale).astype(np.float32)
    return PreparedData(
        key=key,
        task=dataset.task,
        view=view,
        train_x=torch.from_numpy(train_x),
        train_y=torch.from_numpy(train_y),
        val_x=torch.from_numpy(val_x),
        val_y=torch.from_numpy(val_y),
        input_shape=train_x.shape[1:],
        output_size=1 if dataset.task is Task.REGRESSION else len(dataset.class_names),
        target_mean=mean,
        target_scale=scale,
    )


def _prepare_text(dataset: Dataset, parts: Split, key: str) -> PreparedData:
    nothing = torch.zeros(0, dtype=torch.int64)
    return PreparedData(
        key=key,
        task=dataset.task,
        view="text",
        train_x=torch.from_numpy(dataset.X[parts.train].astype(np.int64)),
        train_y=nothing,
        val_x=torch.from_numpy(dataset.X[parts.validation].astype(np.int64)),
        val_y=nothing,
        input_shape=(),
        output_size=len(dataset.vocabulary),
        vocabulary_size=len(dataset.vocabulary),
    )


def _inputs(dataset: Dataset, parts: Split, view: Modality) -> tuple[Floats, Floats]:
    X = cast(Floats, dataset.X)
    train, validation = X[parts.train], X[parts.validation]
    if view == "tabular":
        train, validation = flatten(train), flatten(validation)
        columns = dataset.columns or tuple(Column(f"x{position}") for position in range(train.shape[1]))
        table = fit_table(train, columns)
        return table.apply(train), table.apply(validation)
    # Channels of an image, features of a sequence.
    standardization = fit_standardization(train, feature_axis=1 if dataset.modality == "image" else 2)
    train, validation = standardization.apply(train), standardization.apply(validation)
    if view == "sequence" and dataset.modality == "image":
        return image_rows(train), image_rows(validation)
    return train, validation


def _target_statistics(y: NDArray[np.generic]) -> tuple[float, float]:
    values = y.astype(np.float64)
    scale = float(values.std())
    return float(values.mean()), scale if scale > 0.0 else 1.0
