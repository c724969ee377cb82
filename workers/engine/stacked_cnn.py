"""Convolutional networks of many members at once; see `workers.networks.cnn`.

Symbols: m members, B rows of a batch, C channels, H height, W width, D channels of the last stage, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, StoredShapes, round_up, rows_in_step
from workers.engine.stacked_convolutions import NARROW, VECTOR, Activation, Conv2d, GroupNorm, Projection
from workers.engine.stacked_layers import Dropout, Linear, Parameters
from workers.engine.stacked_program import StackedProgram
from workers.engine.stacking import Noise
from workers.networks.activations import ActivationName
from workers.networks.cnn import CNN, ResidualBlock

_FEW_CHANNELS = 4
"""Two and three channels are convolved by kernels whose bits depend on how many members there are."""


@dataclass(frozen=True)
class BlockShape:
    """A residual block: its stride, the groups of its two norms, and whether the shape changes in it."""

    stride: int
    groups: tuple[int, int]
    changes: bool

    @classmethod
    def of(cls, block: nn.Module) -> BlockShape:
        assert type(block) is ResidualBlock
        groups = block.norm1.num_groups, block.norm2.num_groups
        return cls(block.conv1.stride[0], groups, block.shortcut is not None)


@dataclass(frozen=True)
class CNNShape:
    """What convolutional networks must share to be stacked."""

    image: tuple[int, ...]
    width: int
    last_width: int
    stem_size: int
    stem_stride: int
    stem_padding: int
    blocks: tuple[BlockShape, ...]
    last_groups: int
    outputs: int
    activation: ActivationName

    @classmethod
    def of(cls, module: CNN, data: DeviceData) -> CNNShape:
        config, stem = module.config, module.stem
        assert isinstance(stem.padding, tuple)
        return cls(
            image=tuple(data.prepared.input_shape),
            width=config.width,
            last_width=module.norm.num_channels,
            stem_size=stem.kernel_size[0],
            stem_stride=stem.stride[0],
            stem_padding=stem.padding[0],
            blocks=tuple(BlockShape.of(block) for block in module.blocks),
            last_groups=module.norm.num_groups,
            outputs=data.prepared.output_size,
            activation=config.activation,
        )

    @property
    def row_multiple(self) -> int:
        return rows_in_step(self.width)

    @property
    def channels(self) -> int:
        """Those that the stem sees: images of two or three get zeros as the fourth."""
        channels = self.image[0]
        return _FEW_CHANNELS if 1 < channels < _FEW_CHANNELS else channels

    @property
    def pixels(self) -> int:
        """Those of an image after the stem."""
        height, width = (-(-side // self.stem_stride) for side in self.image[1:])
        return height * width

    @property
    def is_fast_alone(self) -> bool:
        """Whether a lone member on a CPU does without copies of itself, but for small layers; see `Conv2d`."""
        return self.width == NARROW or self.width % VECTOR == 0

    def stored(self) -> StoredShapes:
        outputs = round_up(self.outputs, FEATURE_MULTIPLE)
        return {
            "stem.weight": (self.width, self.channels, self.stem_size, self.stem_size),
            "head.weight": (outputs, self.last_width),
            "head.bias": (outputs,),
        }

    def program(self, layout: Layout, data: DeviceData) -> StackedProgram:
        """Computes networks of this shape together."""
        return StackedProgram(self.network, layout, data, 0, self.row_multiple)

    def network(self, parameters: Parameters) -> StackedCNN:
        return StackedCNN(self, parameters)


class StackedCNN:
    """See `StackedNetwork`."""

    def __init__(self, shape: CNNShape, parameters: Parameters) -> None:
        self._stem = Conv2d(parameters, "stem", shape.stem_stride, shape.stem_padding)
        self._missing = shape.channels - shape.image[0]
        self._blocks = [
            _Block(block, parameters, f"blocks.{position}.", shape.activation)
            for position, block in enumerate(shape.blocks)
        ]
        self._norm, self._activation = GroupNorm(parameters, "norm", shape.last_groups), Activation(shape.activation)
        self._dropout, self._head = Dropout(0), Linear(parameters, "head")
        self._shape = torch.Size()

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:  # (m, B, C, H, W) -> (m, B, K)
        members, batch = x.shape[:2]
        images = F.pad(x, (0, 0, 0, 0, 0, self._missing)) if self._missing else x
        states = self._stem.forward(images.transpose(0, 1).flatten(1, 2))  # (B, mC, H, W)
        for block in self._blocks:
            states = block.forward(states)
        states = self._activation.forward(self._norm.forward(states))
        self._shape = states.shape
        means = states.mean((2, 3)).view(batch, members, -1).transpose(0, 1).contiguous()  # (m, B, D)
        return self._head.forward(self._dropout.forward(means, noise))

    def backward(self, derivatives: Tensor) -> None:
        by_means = self._dropout.backward(self._head.backward(derivatives))  # (m, B, D)
        batch, channels, height, width = self._shape
        pixels = by_means.transpose(0, 1).reshape(batch, channels, 1, 1) / (height * width)
        d = self._norm.backward(self._activation.backward(pixels.expand(self._shape).contiguous()))
        for block in reversed(self._blocks):
            d = block.backward(d)
        self._stem.backward_parameters(d)


class _Block:
    """x + f(x), or a strided 1x1 convolution of it + f(x); see `ResidualBlock`."""

    def __init__(self, shape: BlockShape, parameters: Parameters, name: str, activation: ActivationName) -> None:
        self._norm1 = GroupNorm(parameters, name + "norm1", shape.groups[0])
        self._norm2 = GroupNorm(parameters, name + "norm2", shape.groups[1])
        self._activation1, self._activation2 = Activation(activation), Activation(activation)
        self._conv1 = Conv2d(parameters, name + "conv1", shape.stride, 1)
        self._conv2 = Conv2d(parameters, name + "conv2", 1, 1)
        self._shortcut = Projection(parameters, name + "shortcut", shape.stride) if shape.changes else None

    def forward(self, x: Tensor) -> Tensor:  # (B, mC, H, W) -> (B, mC', H', W')
        inner = self._activation1.forward(self._norm1.forward(x))
        middle = self._activation2.forward(self._norm2.forward(self._conv1.forward(inner)))
        outputs = self._conv2.forward(middle)
        if self._shortcut is None:
            return outputs.add_(x)
        self._shortcut.forward(inner, outputs)
        return outputs

    def backward(self, d: Tensor) -> Tensor:  # (B, mC', H', W') -> (B, mC, H, W)
        middle = self._norm2.backward(self._activation2.backward(self._conv2.backward(d)))
        inner = self._conv1.backward(middle)
        if self._shortcut is not None:
            self._shortcut.backward(d, inner)
        outer = self._norm1.backward(self._activation1.backward(inner))
        return outer if self._shortcut is not None else outer.add_(d)
