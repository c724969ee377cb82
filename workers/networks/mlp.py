"""Multi-layer perceptron for tables.

Axes: B rows of a batch, F features, H width, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from foretune.json_types import JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.schedules import ScheduleShape
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks.activations import ACTIVATIONS, ActivationName, initialise
from workers.networks.dropout import Dropout
from workers.networks.network import DataShape, Network
from workers.networks.reading import read_config
from workers.networks.training import training_parameters


@dataclass(frozen=True)
class MLPConfig:
    """`depth` hidden layers of `width` units each; `dropout` after every one."""

    width: int = 128
    depth: int = 2
    dropout: float = 0.1
    activation: ActivationName = "relu"


class MLP(nn.Module):
    """Linear, activation, dropout, `depth` times; then a linear head. No normalisation: inputs are standardised."""

    def __init__(self, config: MLPConfig, features: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        widths = [features] + [config.width] * config.depth
        self.hidden = nn.ModuleList(nn.Linear(before, config.width) for before in widths[:-1])
        self.dropouts = nn.ModuleList(Dropout(config.dropout) for _ in self.hidden)
        self.head = nn.Linear(widths[-1], outputs)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            initialise(layer, config.activation)
        initialise(self.head, None)

    def forward(self, x: Tensor) -> Tensor:  # (B, F) -> (B, K)
        activation = ACTIVATIONS[self.config.activation]
        for layer, dropout in zip(self.hidden, self.dropouts, strict=True):
            x = dropout(activation(layer(x)))  # (B, H)
        outputs: Tensor = self.head(x)
        return outputs


def build(configuration: Mapping[str, JsonValue], shape: DataShape) -> nn.Module:
    """The untrained network; see `Network.build`."""
    (features,) = shape.input_shape
    return MLP(read_config(MLPConfig, configuration), features, shape.output_size)


NETWORK = Network(
    name="mlp",
    description="Multi-layer perceptron for tables: linear layers, activation, dropout",
    tasks=(Task.CLASSIFICATION, Task.REGRESSION),
    views=("tabular",),
    space=Space.of(
        *training_parameters(learning_rate=(1e-4, 1.0), batch_sizes=[32, 64, 128, 256, 512], dropout=0.5),
        Int("width", 16, 512, log=True, role="width"),
        Int("depth", 1, 4, role="depth"),
        Categorical("activation", ["relu", "gelu", "tanh"], role="activation"),
        Schedule("lr_schedule", role="lr_schedule"),
    ),
    build=build,
    # Chosen on noisy digits, synthetic classes and images of clothes (docs/LOG.md, 2026-11-28): regularisation
    # pays even in twenty epochs, and so do more updates at a higher rate that stays high for longer.
    defaults={
        "width": 128,
        "depth": 2,
        "dropout": 0.2,
        "activation": "gelu",
        "learning_rate": 5e-3,
        "batch_size": 32,
        "weight_decay": 0.1,
        "label_smoothing": 0.05,
        "lr_schedule": ScheduleShape(0.05, 0.4, 1.0, 0.0).to_json(),
    },
    limits={
        "width": Int("width", 1, 8_192),
        "depth": Int("depth", 0, 32),
        "dropout": Float("dropout", 0.0, 0.95),
        "activation": Categorical("activation", list(ACTIVATIONS)),
    },
)
