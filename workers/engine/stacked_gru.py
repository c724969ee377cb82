"""Gated recurrent networks of many members at once; see `workers.networks.gru` for the formulas.

Symbols: m members, B rows of a batch, T steps, F features, H width, V vocabulary, K outputs; d derivatives of the
loss; a what a gate's activation is applied to.

States are kept with time before the batch, (m, T, B, H): each step is then one block of every member. Back through
time, with h' = n + z (h - n) and dh its derivative:

    da_n = dh (1 - z) (1 - n^2)    da_r = da_n (U_n h + c_n) r (1 - r)    da_z = dh (h - n) z (1 - z)
    d(U h + c) = (da_r, da_z, r da_n)    d(W x + b) = (da_r, da_z, da_n)    dh_before = dh z + d(U h + c) U
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.device_data import FEATURE_MULTIPLE, DeviceData
from workers.engine.layout import Layout, StoredShapes, round_up, rows_in_step
from workers.engine.stacked_layers import Dropout, Embedding, Linear, Parameters
from workers.engine.stacked_program import StackedProgram
from workers.engine.stacking import Noise
from workers.networks import dropout as noise_of
from workers.networks.gru import GRU

_aten = torch.ops.aten


@dataclass(frozen=True)
class GRUShape:
    """What recurrent networks must share to be stacked. `features` is 0 and `context_length` counts for texts."""

    features: int
    width: int
    depth: int
    outputs: int
    context_length: int

    @classmethod
    def of(cls, module: GRU, data: DeviceData, context_length: int) -> GRUShape:
        features = 0 if data.is_text else data.prepared.input_shape[1]
        return cls(features, module.config.width, module.config.depth, data.prepared.output_size, context_length)

    @property
    def row_multiple(self) -> int:
        return rows_in_step(self.width)

    def stored(self) -> StoredShapes:
        outputs = round_up(self.outputs, FEATURE_MULTIPLE)
        shapes: dict[str, tuple[int, ...]] = {"head.weight": (outputs, self.width), "head.bias": (outputs,)}
        if self.features:
            shapes["layers.0.weight_ih"] = (3 * self.width, round_up(self.features, FEATURE_MULTIPLE))
        return shapes

    def program(self, layout: Layout, data: DeviceData) -> StackedProgram:
        """Computes networks of this shape together."""
        return StackedProgram(self.network, layout, data, self.context_length, self.row_multiple)

    def network(self, parameters: Parameters) -> StackedGRU:
        return StackedGRU(self, parameters)


class StackedGRU:
    """See `StackedNetwork`."""

    def __init__(self, shape: GRUShape, parameters: Parameters) -> None:
        self._reads_text = not shape.features
        self._embedding = Embedding(parameters, "embedding")
        self._layers = [_Layer(parameters, f"layers.{position}.") for position in range(shape.depth)]
        self._dropouts = [Dropout(position) for position in range(shape.depth)]
        self._head = Linear(parameters, "head")
        self._shape = torch.Size()

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        timed = x.transpose(1, 2).flatten(1, 2)  # (m, TB, F), or (m, TB) token ids
        states = self._embedding.forward(timed) if self._reads_text else timed
        members, batch, steps = x.shape[:3]
        for layer, dropout in zip(self._layers, self._dropouts, strict=True):
            states = layer.forward(states.view(members, steps, batch, -1))  # (m, T, B, H)
            self._shape = states.shape
            words = _timed_words(states.shape, states.device) if noise is not None else None
            states = dropout.forward(states.flatten(1, 2), noise, words)
        if self._reads_text:
            return self._head.forward(states).view(members, steps, batch, -1).transpose(1, 2)
        return self._head.forward(states.view(self._shape).mean(1))

    def backward(self, derivatives: Tensor) -> None:
        if self._reads_text:
            d = self._head.backward(derivatives.transpose(1, 2).flatten(1, 2))  # (m, TB, H)
        else:
            steps = self._shape[1]
            by_mean = self._head.backward(derivatives) / steps
            d = by_mean.unsqueeze(1).expand(self._shape).flatten(1, 2)
        for position in range(len(self._layers) - 1, -1, -1):
            d = self._dropouts[position].backward(d).view(self._shape)
            by_inputs = self._layers[position].backward(d)
            if position:
                d = self._layers[position].backward_inputs(by_inputs)
            elif self._reads_text:
                self._embedding.backward_parameters(self._layers[0].backward_inputs(by_inputs))


class _Layer:
    """One layer over time, from a zero state; gates in the order r, z, n."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self._parameters, self._name = parameters, name
        self._width = parameters.values[name + "weight_hh"].shape[2]
        self._x = self._states = self._gates = self._new = torch.empty(0)
        self._recurrent: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:  # (m, T, B, F) -> (m, T, B, H)
        values, name, width = self._parameters.values, self._name, self._width
        members, steps, batch, _ = x.shape
        self._x = x.flatten(1, 2)
        inputs = torch.baddbmm(
            values[name + "bias_ih"].unsqueeze(1), self._x, values[name + "weight_ih"].transpose(1, 2)
        ).view(members, steps, batch, 3 * width)
        weight, bias = values[name + "weight_hh"].transpose(1, 2), values[name + "bias_hh"].unsqueeze(1)
        # The zero state comes first, so that the states before each step are one block.
        self._states = inputs.new_zeros(members, steps + 1, batch, width)
        self._gates = inputs.new_empty(members, steps, batch, 2 * width)
        self._new = inputs.new_empty(members, steps, batch, width)
        self._recurrent = []
        before, *after = self._states.unbind(1)
        resets, updates = (part.unbind(1) for part in torch.split(self._gates, width, 3))
        gate_inputs, new_inputs = (part.unbind(1) for part in torch.split(inputs, [2 * width, width], 3))
        for step, (gates, new) in enumerate(zip(self._gates.unbind(1), self._new.unbind(1), strict=True)):
            recurrent = torch.baddbmm(bias, before, weight)  # (m, B, 3H)
            torch.add(gate_inputs[step], recurrent[:, :, : 2 * width], out=gates).sigmoid_()
            kept = recurrent[:, :, 2 * width :]
            self._recurrent.append(kept)
            torch.addcmul(new_inputs[step], resets[step], kept, out=new).tanh_()
            before = torch.lerp(new, before, updates[step], out=after[step])
        return self._states[:, 1:]

    def backward(self, d: Tensor) -> Tensor:  # (m, T, B, H) -> (m, TB, 3H), the derivative by W x + b
        name, width = self._name, self._width
        weight = self._parameters.values[name + "weight_hh"]
        by_recurrent = torch.cat([self._gates, self._new], 3)  # (m, T, B, 3H): only the room is wanted
        by_new = torch.empty_like(self._new)
        steps = self._through_time(d, weight, by_recurrent, by_new)
        by_inputs = by_recurrent.clone()
        by_inputs[..., 2 * width :] = by_new
        flat, flat_inputs = by_recurrent.flatten(1, 2), by_inputs.flatten(1, 2)
        before = self._states[:, :steps].flatten(1, 2)
        self._parameters.store_product(name + "weight_hh", flat.transpose(1, 2), before)
        self._parameters.store(name + "bias_hh", flat.sum(1))
        self._parameters.store_product(name + "weight_ih", flat_inputs.transpose(1, 2), self._x)
        self._parameters.store(name + "bias_ih", flat_inputs.sum(1))
        return flat_inputs

    def backward_inputs(self, by_inputs: Tensor) -> Tensor:  # (m, TB, 3H) -> (m, TB, F)
        return torch.bmm(by_inputs, self._parameters.values[self._name + "weight_ih"])

    def _through_time(self, d: Tensor, weight: Tensor, by_recurrent: Tensor, by_new: Tensor) -> int:
        """Fills `by_recurrent` and `by_new` from the last step to the first; how many steps there are."""
        width = self._width
        outside, states = d.unbind(1), self._states.unbind(1)
        gates, new = self._gates.unbind(1), self._new.unbind(1)
        resets, updates = (part.unbind(1) for part in torch.split(self._gates, width, 3))
        whole, by_news = by_recurrent.unbind(1), by_new.unbind(1)
        by_gates, by_kept = (part.unbind(1) for part in torch.split(by_recurrent, [2 * width, width], 3))
        by_activation = torch.empty_like(by_gates[0], memory_format=torch.contiguous_format)  # (m, B, 2H)
        by_reset, by_update = torch.split(by_activation, width, 2)
        later: Tensor | None = None
        for step in range(len(new) - 1, -1, -1):
            by_state = outside[step] if later is None else later.add_(outside[step])
            torch.mul(by_state, states[step] - new[step], out=by_update)
            by_tanh = torch.addcmul(by_state, by_state, updates[step], value=-1.0)
            _aten.tanh_backward.grad_input(by_tanh, new[step], grad_input=by_news[step])
            torch.mul(by_news[step], self._recurrent[step], out=by_reset)
            _aten.sigmoid_backward.grad_input(by_activation, gates[step], grad_input=by_gates[step])
            torch.mul(by_news[step], resets[step], out=by_kept[step])
            later = torch.baddbmm(by_state * updates[step], whole[step], weight)
        return len(new)


def _timed_words(shape: torch.Size, device: torch.device) -> Tensor:  # (m, T, B, H) -> (TB, H)
    """Dropout's words for states with time before the batch: those of the same places as in (B, T, H)."""
    _, steps, batch, width = shape
    return noise_of.words(torch.Size((batch, steps, width)), device).transpose(0, 1).flatten(0, 1)
