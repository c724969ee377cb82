"""Stacked programs made of layers: inputs, loss and evaluation are the same for every network.

Symbols: m members, B rows of a batch, T steps, K outputs, K' outputs with padding, P numbers of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from foretune.wire.datasets import Task
from workers.engine import stacked_loss
from workers.engine.device_data import DeviceData
from workers.engine.layout import Layout
from workers.engine.stacked_layers import Parameters
from workers.engine.stacking import Noise, StackedBatch


class StackedNetwork(Protocol):
    """A network of layers (see `stacked_layers`), with the parameters of all members."""

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """From (m, B, …) to (m, B, K'), or from (m, B, T) token ids to (m, B, T, K')."""

    def backward(self, derivatives: Tensor) -> None:
        """Writes the derivatives by the parameters, from those by the outputs."""


Make: TypeAlias = Callable[[Parameters], StackedNetwork]


class StackedProgram:
    """Members whose network `make` makes; see `Program`. `context_length` is that of texts, else 0.

    Inputs to `outputs` are filled up to a multiple of `row_multiple` rows.
    """

    largest_chunk = 256

    def __init__(self, make: Make, layout: Layout, data: DeviceData, context_length: int, row_multiple: int) -> None:
        self._make, self._layout, self._data = make, layout, data
        self._row_multiple = row_multiple
        self._classes = data.prepared.output_size
        self._steps = torch.arange(context_length + 1, device=data.train_x.device)
        self._network: StackedNetwork | None = None

    @property
    def val_x(self) -> Tensor:
        return self._data.wide_val_x

    def bind(self, weights: Tensor, gradient: Tensor) -> None:  # (m, P), (m, P)
        self._network = self._make(Parameters(self._layout.views(weights), self._layout.views(gradient)))

    def gradients(self, batch: StackedBatch) -> Tensor:
        assert self._network is not None
        inputs, targets = self._gather(batch.places)
        outputs = self._network.forward(inputs, batch.noise)
        losses, derivatives = self._loss(outputs, targets, batch)
        self._network.backward(derivatives)
        return losses

    def outputs(self, weights: Tensor, x: Tensor) -> Tensor:  # (m, P), (B, …) -> (m, B, …, K)
        rows = len(x)
        padding = x.new_zeros(-rows % self._row_multiple, *x.shape[1:])
        inputs = torch.cat([x, padding]).expand(len(weights), *(-1,) * x.dim())
        network = self._make(Parameters(self._layout.views(weights)))
        return network.forward(inputs, None)[:, :rows, ..., : self._classes]

    def _loss(self, outputs: Tensor, targets: Tensor, batch: StackedBatch) -> tuple[Tensor, Tensor]:
        weights = batch.row_weights
        if self._data.prepared.task is Task.REGRESSION:
            return stacked_loss.regression(outputs, targets, weights)
        if not self._data.is_text:
            return stacked_loss.classification(outputs, targets, weights, batch.smoothing, self._classes)
        steps = outputs.shape[2]
        losses, derivatives = stacked_loss.classification(
            outputs.flatten(1, 2),
            targets.flatten(1, 2),
            weights.repeat_interleave(steps, 1) / steps,
            batch.smoothing,
            self._classes,
        )
        return losses, derivatives.view(outputs.shape)

    def _gather(self, places: Tensor) -> tuple[Tensor, Tensor]:  # (m, B) -> inputs, targets
        data = self._data
        if data.is_text:
            windows = data.train_x[places.unsqueeze(2) + self._steps].to(data.device)  # (m, B, T + 1)
            return windows[:, :, :-1], windows[:, :, 1:]
        flat = places.view(-1)
        inputs = data.wide_train_x.index_select(0, flat).view(*places.shape, *data.wide_train_x.shape[1:])
        targets = data.train_y.index_select(0, flat).view(places.shape)
        return inputs.to(data.device), targets.to(data.device)
