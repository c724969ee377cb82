"""Transformers of many members at once; see `workers.networks.transformer`.

Symbols: m members, B rows of a batch, T steps, F features, D width, K outputs. States are (m, BT, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, StoredShapes, round_up, rows_in_step
from workers.engine.stacked_layers import GELU, Attention, Dropout, Embedding, LayerNorm, Linear, Parameters
from workers.engine.stacked_program import StackedProgram
from workers.engine.stacking import Noise
from workers.networks.transformer import Transformer


@dataclass(frozen=True)
class TransformerShape:
    """What transformers must share to be stacked. `features` is 0 and `context_length` counts for texts."""

    features: int
    width: int
    depth: int
    heads: int
    outputs: int
    positions: int
    context_length: int

    @classmethod
    def of(cls, module: Transformer, data: DeviceData, context_length: int) -> TransformerShape:
        config = module.config
        features = 0 if data.is_text else data.prepared.input_shape[1]
        outputs, positions = data.prepared.output_size, len(module.positions)
        return cls(features, config.width, config.depth, config.heads, outputs, positions, context_length)

    @property
    def row_multiple(self) -> int:
        return rows_in_step(self.width)

    def stored(self) -> StoredShapes:
        outputs = round_up(self.outputs, FEATURE_MULTIPLE)
        shapes: dict[str, tuple[int, ...]] = {"head.weight": (outputs, self.width), "head.bias": (outputs,)}
        if self.features:
            shapes["embedding.weight"] = (self.width, round_up(self.features, FEATURE_MULTIPLE))
        return shapes

    def program(self, layout: Layout, data: DeviceData) -> StackedProgram:
        """Computes networks of this shape together."""
        return StackedProgram(self.network, layout, data, self.context_length, self.row_multiple)

    def network(self, parameters: Parameters) -> StackedTransformer:
        return StackedTransformer(self, parameters)


class StackedTransformer:
    """See `StackedNetwork`."""

    def __init__(self, shape: TransformerShape, parameters: Parameters) -> None:
        self._reads_text = not shape.features
        self._parameters = parameters
        self._tokens, self._features = Embedding(parameters, "embedding"), Linear(parameters, "embedding")
        self._dropout = Dropout(0)
        self._blocks = [_Block(shape, parameters, position) for position in range(shape.depth)]
        self._norm, self._head = LayerNorm(parameters, "norm"), Linear(parameters, "head")
        self._shape = torch.Size()

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        members, batch, steps = self._shape = x.shape[:3]
        rows = x.flatten(1, 2)
        embedded = (self._tokens if self._reads_text else self._features).forward(rows)  # (m, BT, D)
        places = self._parameters.values["positions"][:, None, :steps]
        states = (embedded.view(members, batch, steps, -1) + places).flatten(1, 2)
        states = self._dropout.forward(states, noise)
        for block in self._blocks:
            states = block.forward(states, steps, noise)
        states = self._norm.forward(states)
        if self._reads_text:
            return self._head.forward(states).view(members, batch, steps, -1)
        return self._head.forward(states.view(members, batch, steps, -1).mean(2))

    def backward(self, derivatives: Tensor) -> None:
        members, batch, steps = self._shape
        if self._reads_text:
            d = self._head.backward(derivatives.flatten(1, 2))
        else:
            by_mean = self._head.backward(derivatives) / steps
            d = by_mean.unsqueeze(2).expand(-1, -1, steps, -1).flatten(1, 2)
        d = self._norm.backward(d)
        for block in reversed(self._blocks):
            d = block.backward(d)
        d = self._dropout.backward(d)
        by_places = self._parameters.gradients["positions"]
        by_places[:, steps:].zero_()
        by_places[:, :steps] = d.view(members, batch, steps, -1).sum(1)
        (self._tokens if self._reads_text else self._features).backward_parameters(d)


class _Block:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: TransformerShape, parameters: Parameters, position: int) -> None:
        name = f"blocks.{position}."
        self._norm1, self._norm2 = LayerNorm(parameters, name + "norm1"), LayerNorm(parameters, name + "norm2")
        self._attention_in = Linear(parameters, name + "attention_in")
        self._attention = Attention(shape.heads, causal=not shape.features)
        self._attention_out = Linear(parameters, name + "attention_out")
        self._mlp_in, self._gelu = Linear(parameters, name + "mlp_in"), GELU()
        self._mlp_out = Linear(parameters, name + "mlp_out")
        self._dropout1, self._dropout2 = Dropout(1 + 2 * position), Dropout(2 + 2 * position)

    def forward(self, x: Tensor, steps: int, noise: Noise | None) -> Tensor:  # (m, BT, D) -> (m, BT, D)
        packed = self._attention_in.forward(self._norm1.forward(x))
        mixed = self._attention_out.forward(self._attention.forward(packed, steps))
        x = x + self._dropout1.forward(mixed, noise)
        inner = self._gelu.forward(self._mlp_in.forward(self._norm2.forward(x)))
        return x + self._dropout2.forward(self._mlp_out.forward(inner), noise)

    def backward(self, d: Tensor) -> Tensor:  # (m, BT, D) -> (m, BT, D)
        inner = self._mlp_out.backward(self._dropout2.backward(d))
        d = d + self._norm2.backward(self._mlp_in.backward(self._gelu.backward(inner)))
        mixed = self._attention_out.backward(self._dropout1.backward(d))
        return d + self._norm1.backward(self._attention_in.backward(self._attention.backward(mixed)))
