"""The activation functions that networks offer, and how weights before them are initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ActivationName: TypeAlias = Literal["relu", "gelu", "silu", "tanh"]

ACTIVATIONS: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
_GAINS: dict[ActivationName, float] = {"relu": 2.0**0.5, "gelu": 2.0**0.5, "silu": 2.0**0.5, "tanh": 5.0 / 3.0}


def initialise(layer: nn.Linear | nn.Conv2d, activation: ActivationName | None) -> None:
    """Normal weights that keep the variance through `activation` (He et al. 2015; None: no activation), bias zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    with torch.no_grad():
        layer.weight.mul_(_GAINS[activation] if activation is not None else 1.0)
        if layer.bias is not None:
            layer.bias.zero_()
