"""A module's parameters as views of one row of numbers, and their gradients as views of another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from foretune.errors import InvalidConfiguration
from workers.engine.layout import Layout, layout


class FlatParameters:
    """`weights` and `gradient`, each (P,) float32: all trainable parameters of `module`, placed by `layout`.

    Writing to `weights` changes the module; `backward` adds to `gradient`. `stored` names the parameters that are
    kept in a larger shape, see `Layout`. Raises InvalidConfiguration when the module has nothing to train, or
    parameters that are not float32.
    """

    def __init__(self, module: nn.Module, stored: Mapping[str, tuple[int, ...]] | None = None) -> None:
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        if not named:
            raise InvalidConfiguration("the network has no trainable parameters")
        other = next((p.dtype for _, p in named if p.dtype != torch.float32), None)
        if other is not None:
            raise InvalidConfiguration(f"the network's parameters must be float32, not {other}")
        self._parameters = [parameter for _, parameter in named]
        self.layout: Layout = layout([(name, tuple(parameter.shape)) for name, parameter in named], stored)
        self.weights: Tensor = named[0][1].new_zeros(self.layout.size)
        self.gradient: Tensor = torch.zeros_like(self.weights)
        for view, parameter in zip(self.layout.parameters(self.weights), self._parameters, strict=True):
            view.copy_(parameter.detach())
        self._point()

    def move(self, weights: Tensor, gradient: Tensor) -> None:  # (P,), (P,)
        """Makes the module live in other rows; the values go along."""
        weights.copy_(self.weights)
        self.weights, self.gradient = weights, gradient
        self._point()

    def _point(self) -> None:
        weights, gradients = self.layout.parameters(self.weights), self.layout.parameters(self.gradient)
        for parameter, weight, gradient in zip(self._parameters, weights, gradients, strict=True):
            parameter.data = weight
            parameter.grad = gradient
