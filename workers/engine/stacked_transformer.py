"""Transformers of many members at once; see `workers.networks.transformer`.

Symbols: m members, B rows of a batch, T steps, F features, D width, A heads, E = D / A, V vocabulary, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, round_up, rows_in_step
from workers.engine.slot import StoredShapes
from workers.engine.stacked_autograd import StackedAutograd
from workers.engine.stacked_layers import dropout, embedding, layer_norm, linear
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

    def program(self, layout: Layout, data: DeviceData) -> StackedAutograd:
        """Computes networks of this shape together."""
        return StackedAutograd(self.forward, layout, data, self.context_length, self.row_multiple)

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor, noise: Noise | None) -> Tensor:
        """(m, B, T, F) -> (m, B, K'), or (m, B, T) token ids -> (m, B, T, K')."""
        if self.features:
            states = linear(x, parameters["embedding.weight"], parameters["embedding.bias"])
        else:
            states = embedding(x, parameters["embedding.weight"])
        states = dropout(states + parameters["positions"][:, None, : x.shape[2]], noise, 0)  # (m, B, T, D)
        for position in range(self.depth):
            block = f"blocks.{position}."
            mixed = self._attention(layer_norm(states, *_pair(parameters, block + "norm1")), parameters, block)
            states = states + dropout(mixed, noise, 1 + 2 * position)
            inner = F.gelu(
                linear(layer_norm(states, *_pair(parameters, block + "norm2")), *_pair(parameters, block + "mlp_in"))
            )
            states = states + dropout(linear(inner, *_pair(parameters, block + "mlp_out")), noise, 2 + 2 * position)
        states = layer_norm(states, *_pair(parameters, "norm"))
        return linear(states.mean(2) if self.features else states, *_pair(parameters, "head"))

    def _attention(self, x: Tensor, parameters: Mapping[str, Tensor], block: str) -> Tensor:  # (m, B, T, D)
        members, batch, steps, _ = x.shape
        packed = linear(x, *_pair(parameters, block + "attention_in"))
        packed = packed.view(members * batch, steps, 3, self.heads, -1)  # (mB, T, 3, A, E)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # each (mB, A, T, E)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=not self.features)
        joined = mixed.transpose(1, 2).reshape(members, batch, steps, -1)
        return linear(joined, *_pair(parameters, block + "attention_out"))


def _pair(parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return parameters[name + ".weight"], parameters[name + ".bias"]
