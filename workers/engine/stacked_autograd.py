"""Stacked programs whose backward pass is autograd's: a forward function of all members' parameters is enough.

Symbols: m members, B rows of a batch, T steps, K outputs, P numbers of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from foretune.wire.datasets import Task
from workers.engine import stacked_loss
from workers.engine.device_data import DeviceData
from workers.engine.layout import Layout
from workers.engine.stacking import Noise, StackedBatch


class Forward(Protocol):
    def __call__(self, parameters: Mapping[str, Tensor], x: Tensor, noise: Noise | None) -> Tensor:
        """Outputs (m, B, K') or (m, B, T, K') from parameters (m, …) and inputs (m, B, …); K' >= K."""


class StackedAutograd:
    """Members whose outputs `forward` computes; see `Program`. `context_length` is that of texts, else 0.

    Inputs to `outputs` are filled up to a multiple of `row_multiple` rows.
    """

    largest_chunk = 256

    def __init__(
        self, forward: Forward, layout: Layout, data: DeviceData, context_length: int, row_multiple: int
    ) -> None:
        self._row_multiple = row_multiple
        self._forward, self._layout, self._data = forward, layout, data
        self._classes = data.prepared.output_size
        self._steps = torch.arange(context_length + 1, device=data.train_x.device)
        self._parameters: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    @property
    def val_x(self) -> Tensor:
        return self._data.wide_val_x

    def bind(self, weights: Tensor, gradient: Tensor) -> None:  # (m, P), (m, P)
        views = self._layout.views(weights)
        self._parameters = {name: view.detach().requires_grad_() for name, view in views.items()}
        self._gradients = self._layout.views(gradient)

    def gradients(self, batch: StackedBatch) -> Tensor:
        inputs, targets = self._gather(batch.places)
        with torch.enable_grad():
            outputs = self._forward(self._parameters, inputs, batch.noise)
        losses, derivatives = self._loss(outputs.detach(), targets, batch)
        found = torch.autograd.grad(outputs, list(self._parameters.values()), derivatives)
        for target, gradient in zip(self._gradients.values(), found, strict=True):
            target.copy_(gradient)
        return losses

    def outputs(self, weights: Tensor, x: Tensor) -> Tensor:  # (m, P), (B, …) -> (m, B, …, K)
        rows = len(x)
        padding = x.new_zeros(-rows % self._row_multiple, *x.shape[1:])
        inputs = torch.cat([x, padding]).expand(len(weights), *(-1,) * x.dim())
        return self._forward(self._layout.views(weights), inputs, None)[:, :rows, ..., : self._classes]

    def _loss(self, outputs: Tensor, targets: Tensor, batch: StackedBatch) -> tuple[Tensor, Tensor]:
        weights = batch.row_weights
        if self._data.prepared.task is Task.REGRESSION:
            return stacked_loss.regression(outputs, targets, weights)
        rows = outputs
        if self._data.is_text:
            steps = outputs.shape[2]
            rows, targets = outputs.flatten(1, 2), targets.flatten(1, 2)
            weights = weights.repeat_interleave(steps, 1) / steps
        losses, derivatives = stacked_loss.classification(
            rows.clone(), targets, weights, batch.smoothing, self._classes
        )
        return losses, derivatives.view_as(outputs)

    def _gather(self, places: Tensor) -> tuple[Tensor, Tensor]:  # (m, B) -> inputs, targets
        data = self._data
        if data.is_text:
            windows = data.train_x[places.unsqueeze(2) + self._steps].to(data.device)  # (m, B, T + 1)
            return windows[:, :, :-1], windows[:, :, 1:]
        flat = places.view(-1)
        inputs = data.wide_train_x.index_select(0, flat).view(*places.shape, *data.wide_train_x.shape[1:])
        targets = data.train_y.index_select(0, flat).view(places.shape)
        return inputs.to(data.device), targets.to(data.device)
