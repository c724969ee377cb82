"""Residual network for tables (Gorishniy et al. 2021, "Revisiting deep learning models for tabular data", section 3.2).

Axes: B rows of a batch, F features, H width, K outputs. LayerNorm stands where the paper has BatchNorm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from foretune import Float, Int, Schedule, Space
from foretune.json_types import JsonValue
from foretune.wire.datasets import Task
from workers.networks import DataShape, Dropout, Network, training_parameters
from workers.networks.reading import read_config


@dataclass(frozen=True)
class ResNetConfig:
    """`depth` blocks of `width` units, each `expansion` times as wide inside; `dropout` inside the blocks."""

    width: int = 64
    depth: int = 2
    expansion: float = 2.0
    dropout: float = 0.1


class Block(nn.Module):
    """x + linear(dropout(relu(linear(norm(x)))))"""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        inner = round(config.width * config.expansion)
        self.norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, inner)
        self.dropout = Dropout(config.dropout)
        self.narrow = nn.Linear(inner, config.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H) -> (B, H)
        outputs: Tensor = x + self.narrow(self.dropout(F.relu(self.widen(self.norm(x)))))
        return outputs


class ResNet(nn.Module):
    """Linear, blocks, norm, linear."""

    def __init__(self, config: ResNetConfig, features: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Linear(features, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, outputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, F) -> (B, K)
        outputs: Tensor = self.head(F.relu(self.norm(self.blocks(self.stem(x)))))
        return outputs


def build(configuration: Mapping[str, JsonValue], shape: DataShape) -> nn.Module:
    """The untrained network. `configuration` holds every hyperparameter; `read_config` takes those of the dataclass."""
    (features,) = shape.input_shape
    return ResNet(read_config(ResNetConfig, configuration), features, shape.output_size)


NETWORK = Network(
    name="tabular-resnet",
    description="Residual network for tables, from the package foretune-example-network",
    tasks=(Task.CLASSIFICATION, Task.REGRESSION),
    views=("tabular",),
    space=Space.of(
        *training_parameters(learning_rate=(1e-4, 1.0), batch_sizes=[32, 64, 128, 256], dropout=0.5),
        Int("width", 16, 256, log=True, role="width"),
        Int("depth", 1, 6, role="depth"),
        Float("expansion", 1.0, 4.0),
        Schedule("lr_schedule"),
    ),
    build=build,
    defaults={"width": 64, "depth": 2, "expansion": 2.0, "dropout": 0.1},
    limits={
        "width": Int("width", 1, 4_096),
        "depth": Int("depth", 0, 64),
        "expansion": Float("expansion", 0.25, 16.0),
        "dropout": Float("dropout", 0.0, 0.95),
    },
)
