"""The data where training reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from foretune.wire.datasets import Task
from workers.datasets.dataset import Modality
from workers.datasets.prepare import PreparedData
from workers.engine.device import fits
from workers.engine.layout import round_up
from workers.networks import DataShape

FEATURE_MULTIPLE = 16
"""Stacked networks see tables and sequences whose features are padded with zero columns to a multiple of this."""


@dataclass(frozen=True, eq=False)
class DeviceData:
    """The data on the device when they fit, else in main memory."""

    prepared: PreparedData
    device: torch.device
    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor

    @property
    def shape(self) -> DataShape:
        data = self.prepared
        return DataShape(data.task, tuple(data.input_shape), data.output_size)

    @property
    def is_text(self) -> bool:
        return self.prepared.task is Task.LANGUAGE_MODELLING

    @cached_property
    def wide_train_x(self) -> Tensor:
        """The training rows of tables and sequences with padded features, all others as they are."""
        return _wide(self.train_x, self.prepared.view)

    @cached_property
    def wide_val_x(self) -> Tensor:
        """The validation rows, likewise."""
        return _wide(self.val_x, self.prepared.view)

    @cached_property
    def half_train_x(self) -> Tensor:
        """`wide_train_x` in bfloat16."""
        return self.wide_train_x.bfloat16()

    @cached_property
    def half_val_x(self) -> Tensor:
        """`wide_val_x` in bfloat16."""
        return self.wide_val_x.bfloat16()


def on_device(data: PreparedData, device: torch.device) -> DeviceData:
    """Moves the data to the device when at most half of its free memory is taken by them."""
    parts = (data.train_x, data.train_y, data.val_x, data.val_y)
    if fits(device, sum(part.nbytes for part in parts)):
        parts = (data.train_x.to(device), data.train_y.to(device), data.val_x.to(device), data.val_y.to(device))
    return DeviceData(data, device, *parts)


def _wide(x: Tensor, view: Modality) -> Tensor:  # (N, …, F) -> (N, …, F')
    if view not in ("tabular", "sequence"):
        return x
    missing = round_up(x.shape[-1], FEATURE_MULTIPLE) - x.shape[-1]
    return F.pad(x, (0, missing)) if missing else x
