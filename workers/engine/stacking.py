"""What a stacked computation is told about a step, and what it must be able to do.

Symbols: m members, B rows of a padded batch, L dropout layers, P numbers of a member's row (see `Layout`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Dropout of one step: `keys` (2, L, m, 1, 1), the others (L, m, 1, 1), int32; see `workers.networks.dropout`.

    A member without dropout has the threshold KEEP_ALL and the scale 1: everything of it is kept as it is.
    """

    keys: Tensor
    thresholds: Tensor
    scale_bits: Tensor

    def layer(self, position: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Multipliers, offsets, thresholds and scales of one layer, each (m, 1, 1)."""
        multipliers, offsets = self.keys[:, position]
        return multipliers, offsets, self.thresholds[position], self.scale_bits[position]


@dataclass(frozen=True)
class StackedBatch:
    """One step's rows: `places` (m, B) in the training data, and the weight of each in its member's mean loss.

    `smoothing` (m, 1, 1) is None when no member smooths, `noise` when none has dropout.
    """

    places: Tensor
    row_weights: Tensor
    smoothing: Tensor | None
    noise: Noise | None


class Program(Protocol):
    """Computes members of one signature together. The bits of each are the same whoever sits beside it."""

    largest_chunk: int
    """How many validation rows are computed at once."""

    @property
    def val_x(self) -> Tensor:
        """The validation inputs as `outputs` wants them."""

    def bind(self, weights: Tensor, gradient: Tensor) -> None:  # (m, P), (m, P)
        """Makes these rows the members of the following steps."""

    def gradients(self, batch: StackedBatch) -> Tensor:  # (m,)
        """The losses of the members; their derivatives are written to the rows of `gradient`."""

    def outputs(self, weights: Tensor, x: Tensor) -> Tensor:  # (m, P), (B, …) -> (m, B, K) or (m, B, T, V)
        """What the members answer to the same inputs, without dropout."""
