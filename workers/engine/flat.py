"""A module's parameters as views of one vector, and their gradients as views of another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foretune.errors import InvalidConfiguration


class FlatParameters:
    """`weights` and `gradient`, each (P,) float32: all trainable parameters of `module`, in the module's order.

    Writing to `weights` changes the module; `backward` adds to `gradient`. Raises InvalidConfiguration when the
    module has nothing to train, or parameters that are not float32.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise InvalidConfiguration("the network has no trainable parameters")
        other = next((p.dtype for p in parameters if p.dtype != torch.float32), None)
        if other is not None:
            raise InvalidConfiguration(f"the network's parameters must be float32, not {other}")
        self.weights: Tensor = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient: Tensor = torch.zeros_like(self.weights)
        sizes = [parameter.numel() for parameter in parameters]
        weight_parts, gradient_parts = torch.split(self.weights, sizes), torch.split(self.gradient, sizes)
        for parameter, weights, gradient in zip(parameters, weight_parts, gradient_parts, strict=True):
            parameter.data = weights.view(parameter.shape)
            parameter.grad = gradient.view(parameter.shape)
