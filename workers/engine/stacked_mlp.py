"""Multi-layer perceptrons of many members at once: batched matrix products with a backward pass written by hand.

Symbols: m members, B rows of a batch, F features, H width, K outputs, the last three padded; d delta, the derivative
of the loss by what a layer gives before its activation; M dropout's mask.

    forward   z_l = a_{l-1} W_l^T + b_l     a_l = M_l act(z_l)
    backward  dW_l = d_l^T a_{l-1}     db_l = sum_B d_l     d_{l-1} = act'(z_{l-1}) M_{l-1} (d_l W_l)

Padding costs little and gains much: products whose sides are multiples of 16 run at twice the speed and give the same
bits however many members are multiplied in one call, and perceptrons of nearly the same width can be stacked. It stays
zero: every activation maps zero to zero, so a padded unit sends nothing on and gets no derivative.

At half precision the products of large layers, evaluation included, take factors in bfloat16; see `stacked_linear`.
Small layers, the head nearly always among them, gain nothing and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from foretune.wire.datasets import Task
from workers.engine import stacked_loss
from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, StoredShapes, round_up, rows_in_step
from workers.engine.stacked_linear import HALF, FullLinear, HalfLinear, Linear, full_outputs, half_outputs, is_large
from workers.engine.stacking import StackedBatch
from workers.networks import dropout
from workers.networks.activations import ActivationName
from workers.networks.mlp import MLP

_WIDE, _WIDTH_MULTIPLE = 64, 8
"""From this width on, padding to a multiple of 16 would cost more arithmetic than it gains."""

_CACHED = 1 << 18
"""Numbers of a layer's outputs that a processor's cache holds beside the weights: evaluation takes no more at once."""

_WORTH_ROUNDING = 12_000_000
"""Multiplications of a product, on the mean of the large layers', from which on half precision gains over what is
compiled in float32: from 14,000,000 on, 1.0 to 2.4 times as fast with one or four members; at 8,000,000 .6 to 1.0.
"""

_aten = torch.ops.aten
_FORWARD: dict[ActivationName, Callable[[Tensor, Tensor], object]] = {
    "relu": lambda z, out: torch.relu_(z) if out is z else torch.clamp_min(z, 0.0, out=out),
    "gelu": lambda z, out: _aten.gelu.out(z, out=out),
    "silu": lambda z, out: _aten.silu.out(z, out=out),
    "tanh": lambda z, out: torch.tanh(z, out=out),
}


@dataclass(frozen=True)
class MLPShape:
    """What perceptrons must share to be stacked."""

    features: int
    width: int
    depth: int
    outputs: int
    activation: ActivationName
    task: Task
    half: bool = False
    """Whether layers that are large enough take their products in bfloat16."""

    @classmethod
    def of(cls, module: MLP, data: DeviceData, *, half: bool = False) -> MLPShape:
        config = module.config
        width = round_up(config.width, _WIDTH_MULTIPLE if config.width >= _WIDE else FEATURE_MULTIPLE)
        features = round_up(data.prepared.input_shape[0], FEATURE_MULTIPLE)
        outputs = data.prepared.output_size
        return cls(features, width, config.depth, outputs, config.activation, data.prepared.task, half)

    @property
    def row_multiple(self) -> int:
        return rows_in_step(_WIDTH_MULTIPLE)

    @property
    def layers(self) -> list[tuple[str, int, int]]:
        """Name, inputs and outputs of every linear layer, the head last."""
        before = [self.features] + [self.width] * self.depth
        hidden = [(f"hidden.{position}", before[position], self.width) for position in range(self.depth)]
        return [*hidden, ("head", before[-1], round_up(self.outputs, FEATURE_MULTIPLE))]

    def gains_by_half(self, rows: int) -> bool:
        """Whether half precision makes a step of batches of so many rows faster, also that of a lone member."""
        large = [before * after for _, before, after in self.layers if is_large(before, after)]
        return bool(large) and rows * sum(large) >= _WORTH_ROUNDING * len(large)

    def stored(self) -> StoredShapes:
        """The padded shape of every parameter."""
        weights = {f"{name}.weight": (after, before) for name, before, after in self.layers}
        biases = {f"{name}.bias": (after,) for name, _, after in self.layers}
        return {**weights, **biases}

    def program(self, layout: Layout, data: DeviceData) -> StackedMLP:
        """Computes perceptrons of this shape together."""
        return StackedMLP(self, layout, data)


@dataclass(frozen=True)
class _Layer:
    """A layer of all members, and where its results go.

    `before`, `after` and `passed` are one tensor where the backward pass can do with the last of them: the fewer
    tensors, the more of them stay in the cache.
    """

    linear: Linear
    before: Tensor  # (m, B, N) z
    after: Tensor  # (m, B, N) act(z)
    passed: Tensor  # (m, B, N) what goes on, after dropout
    mask: Tensor  # (m, B, N) float32
    delta: Tensor  # (m, B, N), shared with every other layer but one


def _differentiate(activation: ActivationName, delta: Tensor, before: Tensor, after: Tensor) -> None:
    """Multiplies delta, in place, with the derivative of the activation from `before` to `after`."""
    match activation:
        case "relu":
            _aten.threshold_backward.grad_input(delta, after, 0.0, grad_input=delta)
        case "gelu":
            _aten.gelu_backward.grad_input(delta, before, grad_input=delta)
        case "silu":
            _aten.silu_backward.grad_input(delta, before, grad_input=delta)
        case "tanh":
            _aten.tanh_backward.grad_input(delta, after, grad_input=delta)


class StackedMLP:
    """Members of one `MLPShape`; see `Program`."""

    largest_chunk = 512

    def __init__(self, shape: MLPShape, layout: Layout, data: DeviceData) -> None:
        self._shape, self._layout, self._data = shape, layout, data
        self._activate = _FORWARD[shape.activation]
        _, before, after = shape.layers[0]
        self._reads_half = self._is_half(before, after)
        self._layers: list[_Layer] = []
        self._inputs = self._weights = self._gradient = torch.empty(0)

    @property
    def val_x(self) -> Tensor:
        return self._data.half_val_x if self._reads_half else self._data.wide_val_x

    def bind(self, weights: Tensor, gradient: Tensor) -> None:  # (m, P), (m, P)
        self._weights, self._gradient = weights, gradient
        self._layers = []

    def gradients(self, batch: StackedBatch) -> Tensor:
        data, shape = self._data, self._shape
        if not self._layers:
            self._make_room(batch.places.shape[1])
        places = batch.places.view(-1)
        train_x = data.half_train_x if self._reads_half else data.wide_train_x
        torch.index_select(train_x, 0, places, out=self._inputs.view(-1, shape.features))
        targets = data.train_y.index_select(0, places).view(batch.places.shape)
        outputs = self._run_forward(batch)
        if shape.task is Task.REGRESSION:
            losses, delta = stacked_loss.regression(outputs, targets, batch.row_weights)
        else:
            losses, delta = stacked_loss.classification(
                outputs, targets, batch.row_weights, batch.smoothing, shape.outputs
            )
        self._run_backward(delta, masked=batch.noise is not None)
        return losses

    def outputs(self, weights: Tensor, x: Tensor) -> Tensor:  # (m, P), (B, F) -> (m, B, K)
        together = len(weights)
        if weights.device.type == "cpu":
            together = max(1, _CACHED // (len(x) * self._shape.width))
        if together >= len(weights):
            return self._outputs(weights, x)
        return torch.cat([self._outputs(some, x) for some in torch.split(weights, together)])

    def _outputs(self, weights: Tensor, x: Tensor) -> Tensor:  # (m, P), (B, F) -> (m, B, K)
        values = self._layout.views(weights)
        rows = len(x)
        states = functional.pad(x, (0, 0, 0, -rows % self._shape.row_multiple)).expand(len(weights), -1, -1)
        for name, before, after in self._shape.layers:
            linear = half_outputs if self._is_half(before, after) else full_outputs
            states = linear(values[f"{name}.weight"], values[f"{name}.bias"], states)
            if name != "head":
                self._activate(states, states)
        return states[:, :rows, : self._shape.outputs]

    def _is_half(self, before: int, after: int) -> bool:
        return self._shape.half and is_large(before, after)

    def _run_forward(self, batch: StackedBatch) -> Tensor:  # (m, B, K)
        states = self._inputs
        for position, layer in enumerate(self._layers[:-1]):
            layer.linear.forward(states, layer.before)
            self._activate(layer.before, layer.after)
            states = layer.after
            if batch.noise is not None:
                noise = batch.noise.layer(position)
                words = dropout.words(layer.mask.shape[1:], layer.mask.device)
                dropout.mask(words, *noise, out=layer.mask)
                states = torch.mul(layer.after, layer.mask, out=layer.passed)
        head = self._layers[-1]
        return head.linear.forward(states, head.before)

    def _run_backward(self, delta: Tensor, *, masked: bool) -> None:  # (m, B, K)
        for position in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[position]
            below = self._layers[position - 1] if position else None
            states = self._inputs if below is None else below.passed if masked else below.after
            layer.linear.backward(delta, states, None if below is None else below.delta)
            if below is None:
                return
            if masked:
                below.delta.mul_(below.mask)
            _differentiate(self._shape.activation, below.delta, below.before, below.after)
            delta = below.delta

    def _make_room(self, rows: int) -> None:
        """Allocates what a step of batches of so many rows writes to."""
        weights, width = self._weights, self._shape.width
        values, gradients = self._layout.views(weights), self._layout.views(self._gradient)
        kind = HALF if self._reads_half else weights.dtype
        self._inputs = weights.new_empty(len(weights), rows, self._shape.features, dtype=kind)
        deltas = [weights.new_empty(len(weights), rows, width) for _ in range(2)]
        self._layers = [
            self._layer(rows, values, gradients, name, deltas[position % 2])
            for position, (name, _, _) in enumerate(self._shape.layers)
        ]

    def _layer(
        self, rows: int, values: dict[str, Tensor], gradients: dict[str, Tensor], name: str, delta: Tensor
    ) -> _Layer:
        parts = [of[f"{name}.{part}"] for of in (values, gradients) for part in ("weight", "bias")]
        weight, activation = parts[0], self._shape.activation
        half = self._is_half(weight.shape[2], weight.shape[1])
        z = weight.new_empty(len(weight), rows, weight.shape[1])
        a = z if activation in ("relu", "tanh") else torch.empty_like(z)
        return _Layer(
            linear=HalfLinear(rows, *parts) if half else FullLinear(*parts),
            before=z,
            after=a,
            # Where dropout lets something through, the rectifier's result has kept its sign; only tanh needs it whole.
            passed=torch.empty_like(a) if activation == "tanh" else a,
            mask=torch.empty_like(z, dtype=torch.float32),
            delta=delta,
        )
