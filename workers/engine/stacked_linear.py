"""Linear layers of many members, at either precision: the matrix products of stacked perceptrons.

Symbols: m members, B rows of a batch, K inputs, N outputs; W weights (N, K), b bias; x states, z outputs, d the
derivative of the loss by z.

    forward   z = x W^T + b
    backward  dW = d^T x     db = sum_B d     dx = d W

At half precision the factors of the products are rounded to bfloat16, their sums are taken in float32 by the
processor and rounded once; weights, biases and their derivatives, and everything between two products, are float32
(mixed precision; Micikevicius et al. 2018, with bfloat16, which needs no loss scale; Kalamkar et al. 2019).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

HALF = torch.bfloat16

_LARGE_SIDE, _LARGE_WEIGHTS = 64, 1 << 14
"""Products with fewer inputs, outputs or weights are as fast in float32, or faster."""


class Linear(Protocol):
    """One layer of all members. It reads the weights, and writes the derivatives, in the members' rows."""

    def forward(self, states: Tensor, out: Tensor) -> Tensor:  # (m, B, K), (m, B, N) -> (m, B, N)
        """z, written to `out`."""

    def backward(
        self,
        delta: Tensor,  # (m, B, N)
        states: Tensor,  # (m, B, K)
        below: Tensor | None,  # (m, B, K)
    ) -> None:
        """Writes dW and db to the rows, and dx to `below`; `states` are those of the last `forward`."""


class FullLinear:
    """At float32; see `Linear`."""

    def __init__(
        self,
        weight: Tensor,  # (m, N, K)
        bias: Tensor,  # (m, N)
        weight_gradient: Tensor,  # (m, N, K)
        bias_gradient: Tensor,  # (m, N)
    ) -> None:
        self._weight, self._weight_transposed, self._bias = weight, weight.transpose(1, 2), bias.unsqueeze(1)
        self._weight_gradient, self._bias_gradient = weight_gradient, bias_gradient
        # A product of one member goes to its row at once.
        self._product = weight_gradient if len(weight) == 1 else _like(weight, weight.dtype)

    def forward(self, states: Tensor, out: Tensor) -> Tensor:
        return torch.baddbmm(self._bias, states, self._weight_transposed, out=out)

    def backward(self, delta: Tensor, states: Tensor, below: Tensor | None) -> None:
        torch.bmm(delta.transpose(1, 2), states, out=self._product)
        if self._product is not self._weight_gradient:
            self._weight_gradient.copy_(self._product)
        torch.sum(delta, 1, out=self._bias_gradient)
        if below is not None:
            torch.bmm(delta, self._weight, out=below)


class HalfLinear:
    """With products in bfloat16; see `Linear`. States may be bfloat16 already."""

    def __init__(
        self,
        rows: int,
        weight: Tensor,  # (m, N, K)
        bias: Tensor,  # (m, N)
        weight_gradient: Tensor,  # (m, N, K)
        bias_gradient: Tensor,  # (m, N)
    ) -> None:
        members, after, before = weight.shape
        self._weight, self._bias = weight, bias.unsqueeze(1)
        self._weight_gradient, self._bias_gradient = weight_gradient, bias_gradient
        self._half_weight, self._product = _like(weight, HALF), _like(weight, HALF)
        self._half_weight_transposed = self._half_weight.transpose(1, 2)
        self._states, self._below = (weight.new_empty(members, rows, before, dtype=HALF) for _ in range(2))
        self._outputs, self._delta = (weight.new_empty(members, rows, after, dtype=HALF) for _ in range(2))

    def forward(self, states: Tensor, out: Tensor) -> Tensor:
        self._half_weight.copy_(self._weight)
        if states.dtype != HALF:
            states = self._states.copy_(states)
        # Adding the bias to bfloat16 at once would be slower: torch converts it to a new tensor first.
        return out.copy_(torch.bmm(states, self._half_weight_transposed, out=self._outputs)).add_(self._bias)

    def backward(self, delta: Tensor, states: Tensor, below: Tensor | None) -> None:
        # What `forward` has rounded is rounded still.
        states = states if states.dtype == HALF else self._states
        half = self._delta.copy_(delta)
        torch.bmm(half.transpose(1, 2), states, out=self._product)
        self._weight_gradient.copy_(self._product)
        torch.sum(delta, 1, out=self._bias_gradient)
        if below is not None:
            below.copy_(torch.bmm(half, self._half_weight, out=self._below))


def is_large(before: int, after: int) -> bool:
    """Whether a layer of so many inputs and outputs can gain by half precision."""
    return min(before, after) >= _LARGE_SIDE and before * after >= _LARGE_WEIGHTS


def full_outputs(weight: Tensor, bias: Tensor, states: Tensor) -> Tensor:  # (m, N, K), (m, N), (m, B, K) -> (m, B, N)
    """z at float32, without room of its own."""
    return torch.baddbmm(bias.unsqueeze(1), states, weight.transpose(1, 2))


def half_outputs(weight: Tensor, bias: Tensor, states: Tensor) -> Tensor:  # (m, N, K), (m, N), (m, B, K) -> (m, B, N)
    """z with the product in bfloat16, likewise."""
    return torch.bmm(states.to(HALF), weight.to(HALF).transpose(1, 2)).to(bias.dtype).add_(bias.unsqueeze(1))


def _like(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format)
