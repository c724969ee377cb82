"""Which trials can be stacked: those of one architecture, up to padding, whose batches fall into one bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from workers.engine.device_data import DeviceData
from workers.engine.layout import Layout
from workers.engine.slot import Slot, StoredShapes
from workers.engine.stacked_mlp import MLPShape
from workers.engine.stacking import Program
from workers.networks.mlp import MLP


class StackedShape(Protocol):
    """What modules must share to be computed by one program; hashable."""

    def __hash__(self) -> int: ...

    def stored(self) -> StoredShapes:
        """The padded shape of every parameter that is padded."""

    def program(self, layout: Layout, data: DeviceData, bucket: int) -> Program:
        """Computes modules of this shape together; batches have `bucket` rows."""


@dataclass(frozen=True)
class Signature:
    """Trials with equal signatures on the same data train in one population."""

    shape: StackedShape
    bucket: int


def signature_of(slot: Slot) -> Signature | None:
    """The signature of a trial; None when it can only be trained by the plain loop."""
    if slot.precision != "float32":
        return None
    # A subclass may compute something else.
    if type(slot.module) is MLP:
        return Signature(MLPShape.of(slot.module, slot.data), slot.batches.bucket)
    return None
