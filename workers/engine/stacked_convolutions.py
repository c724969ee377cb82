"""Layers of many members' convolutional networks; `forward` and `backward` are as in `stacked_layers`.

Symbols: m members, B rows of a batch, C channels before and C' after, H height, W width, G groups of a norm.

Images are kept as (B, mC, H, W), the channels of the members side by side: a convolution of all members is then one
with m groups, and their norms are one with m G groups.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workers.engine.stacked_layers import Parameters
from workers.networks.activations import ActivationName

_aten = torch.ops.aten
_EPSILON = 1e-5
_LONE_COPIES = 2
VECTOR, NARROW = 16, 8
"""Channels that a CPU's kernels take at a time."""


class Conv2d:
    """A convolution without a bias.

    One group and several are computed by different kernels on a CPU, several of any number by the same: there a lone
    member therefore convolves beside a copy of itself.
    """

    def __init__(self, parameters: Parameters, name: str, stride: int, padding: int) -> None:
        self._parameters, self._name = parameters, name + ".weight"
        self._stride, self._padding = [stride, stride], [padding, padding]
        self._copies = self._groups = 1
        self._x = self._weight = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:  # (B, mC, H, W) -> (B, mC', H', W')
        weight = self._parameters.values[self._name]  # (m, C', C, K, K)
        needs_copy = x.device.type == "cpu" and len(weight) == 1 and not _alike_alone(weight)
        self._copies = _LONE_COPIES if needs_copy else 1
        self._groups = len(weight) * self._copies
        self._x, self._weight = self._copied(x, 1), self._copied(weight.flatten(0, 1), 0)
        places = self._stride, self._padding, [1, 1], False, [0, 0]
        return self._own(torch.convolution(self._x, self._weight, None, *places, self._groups), 1)

    def backward(self, d: Tensor) -> Tensor:  # (B, mC', H', W') -> (B, mC, H, W)
        return self._own(self._backward(d, by_x=True), 1)

    def backward_parameters(self, d: Tensor) -> None:
        """As `backward`, where nobody asks for the inputs' derivative."""
        self._backward(d, by_x=False)

    def _backward(self, d: Tensor, *, by_x: bool) -> Tensor:
        places = self._stride, self._padding, [1, 1], False, [0, 0]
        found: tuple[Tensor, Tensor, Tensor] = _aten.convolution_backward(
            self._copied(d, 1), self._x, self._weight, None, *places, self._groups, [by_x, True, False]
        )
        target = self._parameters.gradients[self._name]
        target.copy_(self._own(found[1], 0).view(target.shape))
        return found[0]

    def _copied(self, channels: Tensor, dimension: int) -> Tensor:
        return channels if self._copies == 1 else torch.cat([channels] * self._copies, dimension)

    def _own(self, channels: Tensor, dimension: int) -> Tensor:
        """The channels without those of the copies."""
        return channels if self._copies == 1 else channels.chunk(self._copies, dimension)[0].contiguous()


def _alike_alone(weight: Tensor) -> bool:  # (m, C', C, K, K)
    """Whether one group is computed by the kernel of several."""
    after, before, size = weight.shape[1:4]
    return size > 1 and (before == after == NARROW or before % VECTOR == after % VECTOR == 0)


class Projection:
    """A strided 1x1 convolution without a bias, as a matrix product of the pixels that it sees: many times as fast.

    Pixels are (m, C, R) with R = B H' W'.
    """

    def __init__(self, parameters: Parameters, name: str, stride: int) -> None:
        self._parameters, self._name, self._stride = parameters, name + ".weight", stride
        self._pixels = torch.empty(0)

    def forward(self, x: Tensor, onto: Tensor) -> None:  # (B, mC, H, W), (B, mC', H', W')
        """Adds the outputs to `onto`."""
        weight = self._parameters.values[self._name].flatten(2)  # (m, C', C)
        self._pixels = _pixels(self._seen(x, len(weight)))
        outputs = torch.bmm(weight, self._pixels)
        _by_members(onto, len(weight)).add_(_images(outputs, onto))

    def backward(self, d: Tensor, onto: Tensor) -> None:  # (B, mC', H', W'), (B, mC, H, W)
        """Adds the derivative by the inputs to `onto`."""
        weight, target = self._parameters.values[self._name].flatten(2), self._parameters.gradients[self._name]
        pixels = _pixels(_by_members(d, len(weight)))  # (m, C', R)
        target.copy_(torch.bmm(pixels, self._pixels.transpose(1, 2)).view(target.shape))
        by_pixels = torch.bmm(weight.transpose(1, 2), pixels)
        self._seen(onto, len(weight)).add_(_images(by_pixels, d))

    def _seen(self, x: Tensor, members: int) -> Tensor:  # (B, mC, H, W) -> (B, m, C, H', W'), a view
        return _by_members(x, members)[..., :: self._stride, :: self._stride]


def _by_members(x: Tensor, members: int) -> Tensor:  # (B, mC, H, W) -> (B, m, C, H, W)
    return x.view(len(x), members, -1, *x.shape[2:])


def _pixels(images: Tensor) -> Tensor:  # (B, m, C, H, W) -> (m, C, R)
    return images.permute(1, 2, 0, 3, 4).flatten(2)


def _images(pixels: Tensor, like: Tensor) -> Tensor:  # (m, C, R), (B, …, H, W) -> (B, m, C, H, W), a view
    return pixels.view(*pixels.shape[:2], len(like), *like.shape[2:]).permute(2, 0, 1, 3, 4)


class GroupNorm:
    """y = w (x - mean) / sqrt(var + 1e-5) + b, mean and variance those of a group of channels of one image."""

    def __init__(self, parameters: Parameters, name: str, groups: int) -> None:
        self._parameters, self._weight, self._bias = parameters, name + ".weight", name + ".bias"
        self._groups = groups
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:  # (B, mC, H, W) -> (B, mC, H, W)
        values = self._parameters.values
        weight, bias = values[self._weight], values[self._bias]
        flat = weight.flatten()
        groups = len(weight) * self._groups
        normal, mean, scale = torch.native_group_norm(x, flat, bias.flatten(), *_sizes(x), groups, _EPSILON)
        self._kept = (x, mean, scale, flat)
        return normal

    def backward(self, d: Tensor) -> Tensor:  # (B, mC, H, W) -> (B, mC, H, W)
        x, mean, scale, weight = self._kept
        target = self._parameters.gradients[self._weight]
        groups = len(target) * self._groups
        by_x: Tensor
        by_x, by_weight, by_bias = _aten.native_group_norm_backward(
            d, x, mean, scale, weight, *_sizes(x), groups, [True, True, True]
        )
        self._parameters.store(self._weight, by_weight.view(target.shape))
        self._parameters.store(self._bias, by_bias.view(target.shape))
        return by_x


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]


class Activation:
    """One of `ACTIVATIONS`. Both passes use their argument up."""

    def __init__(self, name: ActivationName) -> None:
        self._name: ActivationName = name
        self._kept = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self._kept, outputs = _FORWARD[self._name](x)
        return outputs

    def backward(self, d: Tensor) -> Tensor:
        match self._name:
            case "relu":
                _aten.threshold_backward.grad_input(d, self._kept, 0.0, grad_input=d)
            case "gelu":
                _aten.gelu_backward.grad_input(d, self._kept, grad_input=d)
            case "silu":
                _aten.silu_backward.grad_input(d, self._kept, grad_input=d)
            case "tanh":
                _aten.tanh_backward.grad_input(d, self._kept, grad_input=d)
        return d


def _after(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


_FORWARD: dict[ActivationName, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "relu": lambda x: _after(x.relu_()),
    "gelu": lambda x: (x, torch.nn.functional.gelu(x)),
    "silu": lambda x: (x, torch.nn.functional.silu(x)),
    "tanh": lambda x: _after(x.tanh_()),
}
"""What the derivative is computed from, and the outputs."""
