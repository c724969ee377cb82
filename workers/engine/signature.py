"""Which trials can be stacked: those of one architecture, up to padding, whose batches fall into one bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from workers.engine.device import multiplies_bfloat16
from workers.engine.device_data import DeviceData
from workers.engine.layout import Layout, StoredShapes
from workers.engine.slot import Slot
from workers.engine.stacked_cnn import CNNShape
from workers.engine.stacked_convolutions import NARROW
from workers.engine.stacked_gru import GRUShape
from workers.engine.stacked_mlp import MLPShape
from workers.engine.stacked_transformer import TransformerShape
from workers.engine.stacking import Program
from workers.networks.cnn import CNN
from workers.networks.gru import GRU
from workers.networks.mlp import MLP
from workers.networks.transformer import Transformer


class StackedShape(Protocol):
    """What modules must share to be computed by one program; hashable."""

    def __hash__(self) -> int: ...

    def stored(self) -> StoredShapes:
        """The padded shape of every parameter that is padded."""

    @property
    def row_multiple(self) -> int:
        """Batches must have a multiple of so many rows: the vectors of every member are then filled alike."""

    def program(self, layout: Layout, data: DeviceData) -> Program:
        """Computes modules of this shape together."""


@dataclass(frozen=True)
class Signature:
    """Trials with equal signatures on the same data train in one population."""

    shape: StackedShape
    bucket: int


_LARGEST_TRANSFORMER_LAYER = 48_000
"""Numbers in a layer's outputs (batch, steps, width) beyond which transformers gain nothing on a CPU: measured against
the plain loop, 1 and 4 members were 1.11x and 1.79x as fast at 8,000, 0.98x and 1.18x at 33,000, 0.92x and 1.02x at
66,000. A rule and not a measurement at run time: the choice changes the last bits of a trial, and must not depend on
the mood of the machine.
"""
_LARGEST_CONVOLUTION, _LARGEST_NARROW_CONVOLUTION = 100_000, 300_000
"""Likewise numbers in the first layer of convolutional networks (batch, height and width of the image, channels), the
second for eight channels. Of sixteen and more, 4 members were 1.7x as fast at 33,000 numbers, 1.3x to 1.4x at 66,000,
and 16 members 0.9x to 1.1x at 131,000; of eight, 4 members 2.7x at 16,000, 1.6x at 66,000, 1.3x at 200,000, and 16
members 0.7x at 524,000. Beyond, one member already keeps the processor busy, and several no longer fit the cache.
"""
_NARROWEST = 16
"""Products narrower than this are computed by kernels whose bits depend on how many are multiplied in one call."""


def signature_of(slot: Slot) -> Signature | None:
    """The signature with which a trial is stacked; None when it cannot be, or gains nothing by it."""
    shape = _shape_of(slot)
    if shape is None:
        return None
    bucket = slot.batches.widen(shape.row_multiple)
    return None if slot.data.device.type == "cpu" and not _gains_on_cpu(shape, bucket) else Signature(shape, bucket)


def _gains_on_cpu(shape: StackedShape, bucket: int) -> bool:
    if isinstance(shape, TransformerShape):
        steps = shape.context_length or shape.positions
        return bucket * steps * shape.width <= _LARGEST_TRANSFORMER_LAYER
    if isinstance(shape, CNNShape):
        largest = _LARGEST_NARROW_CONVOLUTION if shape.width <= NARROW else _LARGEST_CONVOLUTION
        return shape.is_fast_alone and bucket * shape.pixels * shape.width <= largest
    return True


def _shape_of(slot: Slot) -> StackedShape | None:
    # By the very type: a subclass may compute something else.
    module, data = slot.module, slot.data
    if type(module) is MLP and slot.precision == "bfloat16" and data.device.type == "cpu":
        # Begun on another processor, it goes on in float32: emulated instructions would take several times as long.
        return MLPShape.of(module, data, half=multiplies_bfloat16())
    if slot.precision != "float32":
        return None
    if type(module) is MLP:
        return MLPShape.of(module, data)
    if type(module) is CNN:
        return CNNShape.of(module, data)
    if type(module) is GRU and module.config.width >= _NARROWEST:
        return GRUShape.of(module, data, slot.context_length)
    if type(module) is Transformer and module.config.width >= _NARROWEST:
        return TransformerShape.of(module, data, slot.context_length)
    return None
