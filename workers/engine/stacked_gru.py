"""Gated recurrent networks of many members at once; see `workers.networks.gru`.

Symbols: m members, B rows of a batch, T steps, F features, H width, V vocabulary, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, round_up, rows_in_step
from workers.engine.slot import StoredShapes
from workers.engine.stacked_autograd import StackedAutograd
from workers.engine.stacked_layers import dropout, embedding, linear
from workers.engine.stacking import Noise
from workers.networks.gru import GRU


@dataclass(frozen=True)
class GRUShape:
    """What recurrent networks must share to be stacked. `features` is 0 and `context_length` counts for texts."""

    features: int
    width: int
    depth: int
    outputs: int
    context_length: int

    @classmethod
    def of(cls, module: GRU, data: DeviceData, context_length: int) -> GRUShape:
        features = 0 if data.is_text else data.prepared.input_shape[1]
        return cls(features, module.config.width, module.config.depth, data.prepared.output_size, context_length)

    @property
    def row_multiple(self) -> int:
        return rows_in_step(self.width)

    def stored(self) -> StoredShapes:
        outputs = round_up(self.outputs, FEATURE_MULTIPLE)
        shapes: dict[str, tuple[int, ...]] = {"head.weight": (outputs, self.width), "head.bias": (outputs,)}
        if self.features:
            shapes["layers.0.weight_ih"] = (3 * self.width, round_up(self.features, FEATURE_MULTIPLE))
        return shapes

    def program(self, layout: Layout, data: DeviceData) -> StackedAutograd:
        """Computes networks of this shape together."""
        return StackedAutograd(self.forward, layout, data, self.context_length, self.row_multiple)

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor, noise: Noise | None) -> Tensor:
        """(m, B, T, F) -> (m, B, K'), or (m, B, T) token ids -> (m, B, T, K')."""
        states = x if self.features else embedding(x, parameters["embedding.weight"])
        for position in range(self.depth):
            states = dropout(_layer(states, parameters, f"layers.{position}."), noise, position)  # (m, B, T, H)
        return linear(states.mean(2) if self.features else states, parameters["head.weight"], parameters["head.bias"])


def _layer(x: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:  # (m, B, T, F) -> (m, B, T, H)
    recurrent_weight = parameters[name + "weight_hh"].transpose(1, 2)
    recurrent_bias = parameters[name + "bias_hh"].unsqueeze(1)
    width = recurrent_weight.shape[1]
    inputs = linear(x, parameters[name + "weight_ih"], parameters[name + "bias_ih"])  # (m, B, T, 3H)
    state = inputs.new_zeros(*x.shape[:2], width)
    states: list[Tensor] = []
    for step in inputs.unbind(2):
        recurrent = torch.baddbmm(recurrent_bias, state, recurrent_weight)  # (m, B, 3H)
        gates = torch.sigmoid(step[:, :, : 2 * width] + recurrent[:, :, : 2 * width])
        new = torch.tanh(step[:, :, 2 * width :] + gates[:, :, :width] * recurrent[:, :, 2 * width :])
        state = torch.lerp(new, state, gates[:, :, width:])
        states.append(state)
    return torch.stack(states, 2)
