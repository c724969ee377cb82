"""Transformer for sequences (one answer for each) and for texts (the next character at each place).

Axes: B sequences of a batch, T steps, F features, D width, A heads, E = D / A, V vocabulary, K outputs.

Pre-norm blocks (Xiong et al. 2020) with learned positions; the outputs of both residual branches are initialised
smaller by sqrt(2 * depth) (Radford et al. 2019). Attention is causal for texts and free for sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretune.json_types import JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks.activations import initialise
from workers.networks.dropout import Dropout
from workers.networks.network import DataShape, Network
from workers.networks.reading import read_config
from workers.networks.training import training_parameters

_EXPANSION = 4


@dataclass(frozen=True)
class TransformerConfig:
    """`depth` blocks of `width` channels; `dropout` after the embedding and at the end of each residual branch.

    `heads` need not divide `width`: each gets width // heads channels, at least one. `context_length` is the
    longest text it reads at once, in tokens.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    context_length: int = 64


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, causal
        inner = config.heads * max(1, config.width // config.heads)
        self.norm1 = nn.LayerNorm(config.width)
        self.attention_in = nn.Linear(config.width, 3 * inner)
        self.attention_out = nn.Linear(inner, config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp_in = nn.Linear(config.width, _EXPANSION * config.width)
        self.mlp_out = nn.Linear(_EXPANSION * config.width, config.width)
        self.dropout1, self.dropout2 = Dropout(config.dropout), Dropout(config.dropout)
        initialise(self.attention_in, None)
        initialise(self.mlp_in, "gelu")
        for layer in (self.attention_out, self.mlp_out):
            initialise(layer, None)
            with torch.no_grad():
                layer.weight.mul_((2 * config.depth) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        batch, steps, _ = x.shape
        packed = self.attention_in(self.norm1(x)).view(batch, steps, 3, self.heads, -1)  # (B, T, 3, A, E)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, A, T, E)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.dropout1(self.attention_out(mixed.transpose(1, 2).reshape(batch, steps, -1)))
        outputs: Tensor = x + self.dropout2(self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)))))
        return outputs


class Transformer(nn.Module):
    """Embedding and positions, blocks, norm, and a linear head on each place or on their mean over time."""

    def __init__(self, config: TransformerConfig, shape: DataShape) -> None:
        super().__init__()
        self.config = config
        self.reads_text = not shape.input_shape
        length = config.context_length if self.reads_text else shape.input_shape[0]
        self.embedding: nn.Embedding | nn.Linear
        if self.reads_text:
            self.embedding = nn.Embedding(shape.output_size, config.width)
            nn.init.normal_(self.embedding.weight, std=0.02)
        else:
            self.embedding = nn.Linear(shape.input_shape[1], config.width)
            initialise(self.embedding, None)
        self.positions = nn.Parameter(torch.empty(length, config.width))
        nn.init.normal_(self.positions, std=0.02)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, causal=self.reads_text) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, shape.output_size)
        initialise(self.head, None)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, F) -> (B, K), or (B, T) token ids -> (B, T, V)
        states = self.dropout(self.embedding(x) + self.positions[: x.shape[1]])  # (B, T, D)
        for block in self.blocks:
            states = block(states)
        states = self.norm(states)
        outputs: Tensor = self.head(states if self.reads_text else states.mean(1))
        return outputs


def build(configuration: Mapping[str, JsonValue], shape: DataShape) -> nn.Module:
    """The untrained network; see `Network.build`."""
    return Transformer(read_config(TransformerConfig, configuration), shape)


NETWORK = Network(
    name="transformer",
    description="Transformer for sequences and for character-level language modelling",
    tasks=(Task.CLASSIFICATION, Task.REGRESSION, Task.LANGUAGE_MODELLING),
    views=("sequence", "text"),
    space=Space.of(
        *training_parameters(learning_rate=(1e-5, 0.3), batch_sizes=[16, 32, 64, 128], dropout=0.4),
        Categorical("width", [32, 48, 64, 96, 128, 192, 256], ordered=True, role="width"),
        Int("depth", 1, 4, role="depth"),
        Categorical("heads", [2, 4, 8], ordered=True, role="heads"),
        Schedule("lr_schedule", role="lr_schedule"),
    ),
    build=build,
    defaults={
        "width": 64,
        "depth": 2,
        "heads": 4,
        "dropout": 0.1,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "beta2": 0.99,
        "gradient_clip": 1.0,
        "lr_schedule": {"warmup_fraction": 0.1, "plateau_fraction": 0.2, "decay_exponent": 1.0, "final_fraction": 0.0},
    },
    limits={
        "width": Int("width", 1, 4_096),
        "depth": Int("depth", 1, 48),
        "heads": Int("heads", 1, 64),
        "dropout": Float("dropout", 0.0, 0.95),
    },
)
