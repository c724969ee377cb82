"""Layers of many members at once, differentiable.

Symbols: m members, R rows (of a batch, or of a batch times steps), K inputs, N outputs, D channels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, NestedIOFunction, once_differentiable
from torch.nn import functional as F

from workers.engine.stacking import Noise
from workers.networks import dropout as noise_of


class _Linear(torch.autograd.Function):
    """x W^T + b. Autograd's own derivative by W is computed transposed, at a third of the speed, and turned round."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: NestedIOFunction, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        by_x = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return by_x, torch.bmm(gradient.transpose(1, 2), x), gradient.sum(1)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # (m, …, K), (m, N, K), (m, N) -> (m, …, N)
    rows: Tensor = _Linear.apply(x.flatten(1, -2), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*x.shape[:-1], -1)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # (m, B, T, D), (m, D), (m, D)
    normal = F.layer_norm(x, x.shape[-1:])
    return torch.addcmul(bias[:, None, None, :], normal, weight[:, None, None, :])


def embedding(tokens: Tensor, table: Tensor) -> Tensor:  # (m, B, T), (m, V, D) -> (m, B, T, D)
    members, vocabulary = table.shape[:2]
    offsets = torch.arange(members, device=tokens.device) * vocabulary
    return F.embedding(tokens + offsets.view(-1, 1, 1), table.reshape(members * vocabulary, -1))


def dropout(x: Tensor, noise: Noise | None, position: int) -> Tensor:  # (m, B, T, D)
    """Layer `position` of the network's dropout layers; nothing without noise."""
    if noise is None:
        return x
    keys, thresholds, scale_bits = (part.unsqueeze(-1) for part in noise.layer(position))
    words = noise_of.words(x.shape[1:], x.device)
    mask = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    scratch = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    noise_of.mask(words, keys, thresholds, scale_bits, out=mask, scratch=scratch)
    return x * mask.to(x.dtype)
