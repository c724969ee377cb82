"""What a network costs: features for the meta-learner, and the engine's ground for choosing a precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foretune.json_types import JsonValue
from foretune.wire.datasets import Task
from workers.networks import DataShape, Network

_TRAINING_OVER_FORWARD = 3.0
"""The backward pass multiplies twice where the forward pass multiplies once."""


@dataclass(frozen=True)
class Cost:
    """`parameters` that are trained, and floating-point operations of one row's forward pass (a window's for texts)."""

    parameters: int
    forward_flops: float

    def update_flops(self, batch_size: int) -> float:
        """Floating-point operations of one update, forward and backward."""
        return _TRAINING_OVER_FORWARD * self.forward_flops * batch_size


def cost(network: Network, configuration: Mapping[str, JsonValue], shape: DataShape) -> Cost:
    """The cost of a network at these hyperparameters, found without memory or arithmetic (on the meta device)."""
    values = network.resolve(configuration)
    with torch.device("meta"):
        module = network.build(values, shape).eval()
        if shape.task is Task.LANGUAGE_MODELLING:
            length = values["context_length"]
            row = torch.zeros((1, length if isinstance(length, int) else 1), dtype=torch.int64)
        else:
            row = torch.zeros((1, *shape.input_shape))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(row)
    return Cost(count_parameters(module), float(counter.get_total_flops()))


def count_parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
