"""The matrices in which the members of a population live, one row each.

Symbols: P numbers of a row (see `Layout`), n members.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workers.engine.slot import Slot

_VECTORS = 4
"""Weights, gradient, and two of the optimizer; SGD leaves the last one at zero."""


class Rows:
    """Rows 0 … n-1 hold the members, in their order. Grows by doubling, never shrinks."""

    def __init__(self, like: Slot) -> None:
        self._like = like.flat.weights
        self.weights, self.gradient, self.first, self.second = self._matrices(1)

    def place(self, members: Sequence[Slot], position: int) -> None:
        """Moves the numbers of the member at `position` into its row, with room made for all of them."""
        if len(members) > len(self.weights):
            self.weights, self.gradient, self.first, self.second = self._matrices(2 * len(self.weights))
            for row, member in enumerate(members):
                self._move(member, row)
        else:
            self._move(members[position], position)

    def _move(self, member: Slot, row: int) -> None:
        member.move(self.weights[row], self.gradient[row], (self.first[row], self.second[row]))

    def _matrices(self, rows: int) -> tuple[Tensor, ...]:  # each (rows, P)
        return tuple(self._like.new_zeros(rows, len(self._like)) for _ in range(_VECTORS))
