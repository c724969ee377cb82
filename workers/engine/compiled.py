"""The compiled way: perceptrons on a CPU, each alone, many updates in one call; see `compiled_mlp`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretune.wire.datasets import Task
from workers.engine import compiled_mlp as kernel
from workers.engine.device import multiplies_bfloat16
from workers.engine.evaluation import classification_metrics, regression_metrics
from workers.engine.slot import Slot
from workers.engine.stacked_mlp import MLPShape
from workers.networks import OptimizerName
from workers.networks.activations import ActivationName
from workers.networks.dropout import words
from workers.networks.mlp import MLP

_ACTIVATIONS: dict[ActivationName, int] = {
    "relu": kernel.RELU,
    "gelu": kernel.GELU,
    "silu": kernel.SILU,
    "tanh": kernel.TANH,
}
_OPTIMIZERS: dict[OptimizerName, int] = {"sgd": kernel.SGD, "adam": kernel.ADAM, "adamw": kernel.ADAMW}
_OPERATIONS_AT_ONCE = 2e8
"""Floating-point operations of one call: some milliseconds, after which somebody else may have his turn."""
_EVALUATED_AT_ONCE = 256
_NO_KEYS = np.empty((0, 0, 2), dtype=np.int32)
_NOTHING_DROPPED = kernel.Dropout(np.empty(0, dtype=np.int32), _NO_KEYS, np.int32(0), np.float32(1.0))


def can_compile(slot: Slot) -> bool:
    """Whether a trial is trained this way. A rule: the choice changes the last bits of a trial."""
    # By the very type: a subclass may compute something else.
    if type(slot.module) is not MLP or slot.data.device.type != "cpu":
        return False
    # Begun in bfloat16 on another processor, it goes on in float32.
    return slot.precision == "float32" or (slot.precision == "bfloat16" and not multiplies_bfloat16())


class Compiled:
    """Steps one perceptron; see `Way`. Its slot is stored in padded shapes from then on."""

    name = "compiled"

    def __init__(self, slot: Slot) -> None:
        module, data = slot.module, slot.data
        assert isinstance(module, MLP)
        shape = MLPShape.of(module, data)
        slot.store_as(shape.stored())
        offsets = {part.name: part.offset for part in slot.flat.layout.parts}
        self._net = kernel.Perceptron(
            offsets=np.array([[offsets[f"{name}.{part}"] for part in ("weight", "bias")] for name, *_ in shape.layers]),
            widths=np.array([shape.features, *(after for _, _, after in shape.layers)]),
            activation=_ACTIVATIONS[module.config.activation],
            classes=0 if shape.task is Task.REGRESSION else shape.outputs,
        )
        bucket = slot.batches.bucket
        operations = 6.0 * bucket * sum(before * after for _, before, after in shape.layers)
        self._updates_at_once = max(1, int(_OPERATIONS_AT_ONCE / operations))
        self._room = np.empty(kernel.room_for(max(bucket, _EVALUATED_AT_ONCE), self._net.widths), dtype=np.float32)
        self._words = words(torch.Size((bucket, shape.width)), data.device).numpy().reshape(-1)
        self._x, self._y = data.wide_train_x.numpy(), _numbers(data.train_y)
        self._val_x, self._val_y = data.wide_val_x.numpy(), _numbers(data.val_y)
        self._member: kernel.Member | None = None
        self._places = self._counts = np.empty(0, dtype=np.int64)
        self._keys, self._rates = _NO_KEYS, np.empty(0)

    def bind(self, members: Sequence[Slot]) -> None:
        (slot,) = members
        moments = [vector.numpy() for vector in slot.state.values()]
        weights, gradient = slot.flat.weights.numpy(), slot.flat.gradient.numpy()
        self._member = kernel.Member(weights, gradient, moments[0], moments[-1], self._room)

    def begin_epochs(self, members: Sequence[Slot]) -> None:
        (slot,) = members
        batches, first = slot.batches, slot.update - slot.position
        self._places, self._counts = batches.places.numpy(), np.array(batches.counts)
        self._keys = slot.noise_keys().numpy() if slot.dropouts else _NO_KEYS
        self._rates = np.array([slot.learning_rate(first + update) for update in range(batches.updates_per_epoch)])

    def step(self, members: Sequence[Slot]) -> Tensor:  # (R, 1)
        (slot,) = members
        now = slice(slot.position, slot.position + min(slot.left, self._updates_at_once))
        losses = np.empty(now.stop - now.start)
        assert self._member is not None
        kernel.train(
            self._net,
            self._member,
            kernel.Rows(self._x, self._y, self._places[now], self._counts[now]),
            self._dropout(slot, now),
            slot.settings.label_smoothing,
            _optimizer(slot, self._rates[now]),
            losses,
        )
        return torch.from_numpy(losses).unsqueeze(1)

    def evaluate(self, members: Sequence[Slot]) -> list[dict[str, float]]:
        (slot,) = members
        assert self._member is not None
        first, second = kernel.evaluate(
            self._net, self._member, self._val_x, self._val_y, _NOTHING_DROPPED, _EVALUATED_AT_ONCE
        )
        if self._net.classes:
            return [classification_metrics(first, second, len(self._val_y))]
        return [regression_metrics(first, second, slot.data.prepared)]

    def _dropout(self, slot: Slot, now: slice) -> kernel.Dropout:
        if not slot.dropouts:
            return _NOTHING_DROPPED
        layer = slot.dropouts[0]
        scale = np.float32(layer.scale_bits.view(torch.float32))
        return kernel.Dropout(self._words, self._keys[now], np.int32(layer.threshold), scale)


def warm_up() -> None:
    """Compiles, or loads what was compiled before: the first trial then does not wait for it."""
    numbers, table, one = np.zeros(8, dtype=np.float32), np.zeros((1, 1), dtype=np.float32), np.ones(1, dtype=np.int64)
    net = kernel.Perceptron(np.array([[0, 1]]), np.ones(2, dtype=np.int64), kernel.RELU, 0)
    member = kernel.Member(numbers, numbers.copy(), numbers.copy(), numbers.copy(), numbers.copy())
    rows = kernel.Rows(table, numbers, np.zeros((1, 1), dtype=np.int64), one)
    optimizer = kernel.Optimizer(kernel.SGD, np.zeros(1), 1, (0.0, 0.0, 0.0, 0.0), np.float32(0.0))
    kernel.train(net, member, rows, _NOTHING_DROPPED, 0.0, optimizer, np.zeros(1))
    kernel.evaluate(net, member, table, numbers, _NOTHING_DROPPED, 1)


def _optimizer(slot: Slot, rates: NDArray[np.float64]) -> kernel.Optimizer:
    settings = slot.settings
    first = settings.momentum if settings.optimizer == "sgd" else settings.beta1
    numbers = (settings.weight_decay, first, settings.beta2, settings.epsilon)
    clip = np.float32(settings.gradient_clip)
    return kernel.Optimizer(_OPTIMIZERS[settings.optimizer], rates, slot.update + 1, numbers, clip)


def _numbers(targets: Tensor) -> NDArray[np.float32]:
    """Labels as numbers, too: what is compiled is compiled for one type."""
    return targets.numpy().astype(np.float32, copy=False)
