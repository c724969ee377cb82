"""Gated recurrent unit for sequences (one answer for each) and for texts (the next character at each place).

Axes: B sequences of a batch, T steps, F features, H width, V vocabulary, K outputs.

    r = sigmoid(W_r x + U_r h)    z = sigmoid(W_z x + U_z h)    n = tanh(W_n x + r * (U_n h + c))
    h' = (1 - z) * n + z * h                                    (Cho et al. 2014, in torch's form)

The layer has the parameters of `torch.nn.GRU` and its results, but is written in plain operations: the fused kernel
cannot be stacked by `torch.func`, and on a CPU it is no faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretune.json_types import JsonValue
from foretune.parameters import Float, Int, Schedule
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks.activations import initialise
from workers.networks.dropout import Dropout
from workers.networks.network import DataShape, Network
from workers.networks.reading import read_config
from workers.networks.training import training_parameters


@dataclass(frozen=True)
class GRUConfig:
    """`depth` layers of `width` units each; `dropout` after every one."""

    width: int = 96
    depth: int = 1
    dropout: float = 0.1


class GRULayer(nn.Module):
    """One layer over time, from a zero state; gates in the order r, z, n."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight_ih = nn.Parameter(torch.empty(3 * width, features))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih = nn.Parameter(torch.zeros(3 * width))
        self.bias_hh = nn.Parameter(torch.zeros(3 * width))
        nn.init.normal_(self.weight_ih, std=features**-0.5)
        for gate in self.weight_hh.data.chunk(3):
            nn.init.orthogonal_(gate)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, F) -> (B, T, H)
        width = self.width
        inputs = F.linear(x, self.weight_ih, self.bias_ih)  # (B, T, 3H): all steps at once
        state = inputs.new_zeros(x.shape[0], width)
        states: list[Tensor] = []
        for step in inputs.unbind(1):
            recurrent = F.linear(state, self.weight_hh, self.bias_hh)  # (B, 3H)
            gates = torch.sigmoid(step[:, : 2 * width] + recurrent[:, : 2 * width])
            new = torch.tanh(step[:, 2 * width :] + gates[:, :width] * recurrent[:, 2 * width :])
            state = torch.lerp(new, state, gates[:, width:])
            states.append(state)
        return torch.stack(states, 1)


class GRU(nn.Module):
    """Embedding for texts, GRU layers with dropout, and a linear head on each state or on their mean over time."""

    def __init__(self, config: GRUConfig, shape: DataShape) -> None:
        super().__init__()
        self.config = config
        self.embedding: nn.Embedding | None = None
        features = shape.input_shape[1] if shape.input_shape else config.width
        if not shape.input_shape:
            self.embedding = nn.Embedding(shape.output_size, config.width)
        self.layers = nn.ModuleList(
            GRULayer(features if position == 0 else config.width, config.width) for position in range(config.depth)
        )
        self.dropouts = nn.ModuleList(Dropout(config.dropout) for _ in self.layers)
        self.head = nn.Linear(config.width, shape.output_size)
        initialise(self.head, None)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, F) -> (B, K), or (B, T) token ids -> (B, T, V)
        states = x if self.embedding is None else self.embedding(x)
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            states = dropout(layer(states))  # (B, T, H)
        outputs: Tensor = self.head(states if self.embedding is not None else states.mean(1))
        return outputs


def build(configuration: Mapping[str, JsonValue], shape: DataShape) -> nn.Module:
    """The untrained network; see `Network.build`."""
    return GRU(read_config(GRUConfig, configuration), shape)


NETWORK = Network(
    name="gru",
    description="Gated recurrent network for sequences and for character-level language modelling",
    tasks=(Task.CLASSIFICATION, Task.REGRESSION, Task.LANGUAGE_MODELLING),
    views=("sequence", "text"),
    space=Space.of(
        *training_parameters(learning_rate=(1e-4, 1.0), batch_sizes=[16, 32, 64, 128], dropout=0.5),
        Int("width", 16, 256, log=True, role="width"),
        Int("depth", 1, 3, role="depth"),
        Schedule("lr_schedule", role="lr_schedule"),
    ),
    build=build,
    # Recurrent gradients explode now and then: a norm of 1 is the usual guard.
    defaults={"width": 96, "depth": 1, "dropout": 0.1, "batch_size": 32, "learning_rate": 5e-3, "gradient_clip": 1.0},
    limits={
        "width": Int("width", 1, 4_096),
        "depth": Int("depth", 1, 16),
        "dropout": Float("dropout", 0.0, 0.95),
    },
)
