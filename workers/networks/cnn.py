"""Residual convolutional network for images of any size from 8x8 up, with any number of channels.

Axes: B images of a batch, C channels, H height, W width, K outputs.

Stages double the channels and halve the sides (ceil) until the shorter side is at most 4 or four stages are built;
images with a side over 64 are first reduced by a strided stem. Blocks are pre-activation (He et al. 2016), the last
convolution of each starts at zero, so that every block starts as the identity.

GroupNorm and not BatchNorm: BatchNorm mixes the rows of a batch and keeps running statistics that are changed in
place, so a trial could not be stacked with trials of another batch size, and a masked row would leak into the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from foretune.errors import InvalidConfiguration
from foretune.json_types import JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks.activations import ACTIVATIONS, ActivationName, initialise
from workers.networks.dropout import Dropout
from workers.networks.network import DataShape, Network
from workers.networks.reading import read_config
from workers.networks.training import training_parameters

MIN_SIDE = 8
_MAX_STAGES = 4
_LARGEST_SIDE_AT_FULL_SIZE = 64
_CHANNELS_PER_GROUP = 8


@dataclass(frozen=True)
class CNNConfig:
    """`width` channels in the first stage, `depth` residual blocks a stage; `dropout` before the head."""

    width: int = 16
    depth: int = 1
    dropout: float = 0.1
    activation: ActivationName = "relu"


class ResidualBlock(nn.Module):
    """x + f(x) with two 3x3 convolutions; a strided 1x1 convolution takes x along where the shape changes."""

    def __init__(self, before: int, after: int, stride: int, activation: ActivationName) -> None:
        super().__init__()
        self.activation: ActivationName = activation
        self.norm1 = _group_norm(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm2 = _group_norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(before, after, 1, stride=stride, bias=False) if before != after or stride > 1 else None
        )
        initialise(self.conv1, activation)
        nn.init.zeros_(self.conv2.weight)
        if self.shortcut is not None:
            initialise(self.shortcut, None)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H', W')
        activation = ACTIVATIONS[self.activation]
        inner = activation(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(inner)
        outputs: Tensor = kept + self.conv2(activation(self.norm2(self.conv1(inner))))
        return outputs


class CNN(nn.Module):
    """Stem, stages of residual blocks, norm, mean over the image, dropout, linear head."""

    def __init__(self, config: CNNConfig, image: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.config = config
        channels, height, width = image
        side, stem_stride = min(height, width), 1
        while side > _LARGEST_SIDE_AT_FULL_SIZE:
            side, stem_stride = (side + 1) // 2, stem_stride * 2
        # A strided stem sees every pixel: its kernel is one wider than its stride on both sides.
        self.stem = nn.Conv2d(
            channels, config.width, stem_stride + 2, stride=stem_stride, padding=(stem_stride + 1) // 2, bias=False
        )
        blocks: list[nn.Module] = []
        now = config.width
        for stage in range(_MAX_STAGES):
            if stage > 0 and side <= 4:
                break
            after = config.width * 2**stage
            for block in range(config.depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResidualBlock(now, after, stride, config.activation))
                now = after
            side = (side + 1) // 2 if stage > 0 else side
        self.blocks = nn.ModuleList(blocks)
        self.norm = _group_norm(now)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(now, outputs)
        initialise(self.stem, None)
        initialise(self.head, None)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, K)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = ACTIVATIONS[self.config.activation](self.norm(x)).mean((2, 3))  # (B, C)
        outputs: Tensor = self.head(self.dropout(x))
        return outputs


def build(configuration: Mapping[str, JsonValue], shape: DataShape) -> nn.Module:
    """The untrained network; see `Network.build`. Raises InvalidConfiguration for images smaller than 8x8."""
    channels, height, width = shape.input_shape
    if min(height, width) < MIN_SIDE:
        raise InvalidConfiguration(f"cnn needs images of at least {MIN_SIDE}x{MIN_SIDE} pixels, not {height}x{width}")
    return CNN(read_config(CNNConfig, configuration), (channels, height, width), shape.output_size)


def _group_norm(channels: int) -> nn.GroupNorm:
    """Groups of eight channels or a few more: single channels would lose their mean, which the head reads."""
    groups = max(1, channels // _CHANNELS_PER_GROUP)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


NETWORK = Network(
    name="cnn",
    description="Residual convolutional network for images from 8x8 up, any number of channels",
    tasks=(Task.CLASSIFICATION, Task.REGRESSION),
    views=("image",),
    space=Space.of(
        *training_parameters(learning_rate=(1e-4, 1.0), batch_sizes=[32, 64, 128, 256], dropout=0.5),
        Categorical("width", [8, 12, 16, 24, 32, 48, 64], ordered=True, role="width"),
        Int("depth", 1, 3, role="depth"),
        Schedule("lr_schedule", role="lr_schedule"),
    ),
    build=build,
    defaults={"width": 16, "depth": 1, "dropout": 0.1, "activation": "relu", "learning_rate": 5e-3},
    limits={
        "width": Int("width", 1, 1_024),
        "depth": Int("depth", 1, 32),
        "dropout": Float("dropout", 0.0, 0.95),
        "activation": Categorical("activation", list(ACTIVATIONS)),
    },
)
