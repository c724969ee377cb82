"""Layers of many members at once, each with its backward pass written out: no graph is built, which is most of the time
that small networks take.

Symbols: m members, R rows (of a batch, or of a batch times steps), K inputs, N outputs, B rows of a batch, T steps,
D channels, A heads, E = D / A, V vocabulary.

`forward` keeps what `backward` needs; `backward` takes the derivative of the loss by the outputs, writes those by the
layer's parameters to their rows, and returns that by the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.engine.stacking import Noise
from workers.networks import dropout as noise_of

_aten = torch.ops.aten


@dataclass(frozen=True)
class Parameters:
    """The parameters of all members by their names, each (m, …), and where their derivatives go in training."""

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)

    def store(self, name: str, gradient: Tensor) -> None:
        self.gradients[name].copy_(gradient)

    def store_product(self, name: str, left: Tensor, right: Tensor) -> None:  # (m, N, R), (m, R, K)
        """Stores the matrix product as the derivative by `name`."""
        target = self.gradients[name]
        if target.is_contiguous():
            torch.bmm(left, right, out=target)
        else:
            target.copy_(torch.bmm(left, right))


class Linear:
    """y = x W^T + b."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self._parameters, self._weight, self._bias = parameters, name + ".weight", name + ".bias"
        self._x = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:  # (m, R, K) -> (m, R, N)
        self._x = x
        values = self._parameters.values
        return torch.baddbmm(values[self._bias].unsqueeze(1), x, values[self._weight].transpose(1, 2))

    def backward(self, d: Tensor) -> Tensor:  # (m, R, N) -> (m, R, K)
        self.backward_parameters(d)
        return torch.bmm(d, self._parameters.values[self._weight])

    def backward_parameters(self, d: Tensor) -> None:
        """As `backward`, where nobody asks for the inputs' derivative."""
        self._parameters.store_product(self._weight, d.transpose(1, 2), self._x)
        self._parameters.store(self._bias, d.sum(1))


class LayerNorm:
    """y = w (x - mean) / sqrt(var + 1e-5) + b over the channels."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self._parameters, self._weight, self._bias = parameters, name + ".weight", name + ".bias"
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:  # (m, R, D) -> (m, R, D)
        normal, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, 1e-5)
        self._kept = (x, normal, mean, scale)
        values = self._parameters.values
        return torch.addcmul(values[self._bias].unsqueeze(1), normal, values[self._weight].unsqueeze(1))

    def backward(self, d: Tensor) -> Tensor:  # (m, R, D) -> (m, R, D)
        x, normal, mean, scale = self._kept
        self._parameters.store(self._weight, torch.mul(d, normal).sum(1))
        self._parameters.store(self._bias, d.sum(1))
        by_normal = d * self._parameters.values[self._weight].unsqueeze(1)
        mask = [True, False, False]
        by_x: Tensor = _aten.native_layer_norm_backward(by_normal, x, x.shape[-1:], mean, scale, None, None, mask)[0]
        return by_x


class Embedding:
    """The rows of a table that token ids name."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self._parameters, self._name = parameters, name + ".weight"
        self._places = torch.empty(0)

    def forward(self, tokens: Tensor) -> Tensor:  # (m, R) -> (m, R, D)
        table = self._parameters.values[self._name]
        members, vocabulary, channels = table.shape
        offsets = torch.arange(members, device=tokens.device).unsqueeze(1) * vocabulary
        self._places = tokens + offsets
        return F.embedding(self._places, table.reshape(members * vocabulary, channels))

    def backward_parameters(self, d: Tensor) -> None:  # (m, R, D)
        target = self._parameters.gradients[self._name]
        members, vocabulary, channels = target.shape
        by_table = _aten.embedding_dense_backward(d, self._places, members * vocabulary, -1, False)
        target.copy_(by_table.view(members, vocabulary, channels))


class Dropout:
    """Layer `position` of a network's active dropout layers; passes everything when there is no noise."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._mask: Tensor | None = None

    def forward(self, x: Tensor, noise: Noise | None, words: Tensor | None = None) -> Tensor:  # (m, R, D)
        """`words` (R, D) says in which order the rows are, when that is not the order of the batch."""
        self._mask = None
        if noise is None:
            return x
        if words is None:
            words = noise_of.words(x.shape[1:], x.device)
        mask = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        noise_of.mask(words, *noise.layer(self._position), out=mask)
        self._mask = mask.to(x.dtype)
        return x * self._mask

    def backward(self, d: Tensor) -> Tensor:
        return d if self._mask is None else d * self._mask


class GELU:
    def __init__(self) -> None:
        self._x = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        return F.gelu(x)

    def backward(self, d: Tensor) -> Tensor:
        by_x: Tensor = _aten.gelu_backward(d, self._x)
        return by_x


class Attention:
    """Scaled dot products of queries, keys and values that lie side by side; torch chooses the kernel.

    Autograd differentiates this layer: every device has a kernel of its own.
    """

    def __init__(self, heads: int, *, causal: bool) -> None:
        self._heads, self._causal = heads, causal
        self._packed = self._outputs = torch.empty(0)

    def forward(self, packed: Tensor, steps: int) -> Tensor:  # (m, BT, 3D) -> (m, BT, D)
        members, rows, _ = packed.shape
        with torch.enable_grad():
            self._packed = packed.detach().requires_grad_()
            heads = self._packed.view(members * rows // steps, steps, 3, self._heads, -1)  # (mB, T, 3, A, E)
            query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # each (mB, A, T, E)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self._causal)
            self._outputs = mixed.transpose(1, 2).reshape(members, rows, -1)
        return self._outputs.detach()

    def backward(self, d: Tensor) -> Tensor:  # (m, BT, D) -> (m, BT, 3D)
        return torch.autograd.grad(self._outputs, self._packed, d)[0]
