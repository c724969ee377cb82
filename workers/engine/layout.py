"""Where each parameter of a module lies in one row of numbers.

Symbols: P numbers of a row, m rows of a matrix.

A row may be wider than the module needs: a parameter is stored in a padded shape, with zeros around it, so that
modules of nearly the same shape can be stacked. Every parameter starts at a multiple of 16 numbers and a row holds a
multiple of 32: vector instructions then treat an element alike whichever row it stands in, which keeps a member's bits
independent of its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import TypeAlias

import torch
from torch import Tensor

StoredShapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The padded shape of every parameter that is padded."""

_PARAMETER_MULTIPLE = 16
_ROW_MULTIPLE = 32


@dataclass(frozen=True)
class Part:
    """One parameter: its shape, and the shape and place in which it is stored."""

    name: str
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Layout:
    """The parts of a row of `size` numbers."""

    parts: tuple[Part, ...]
    size: int

    def views(self, rows: Tensor) -> dict[str, Tensor]:  # (m, P) -> each (m, *stored)
        """Every parameter of all rows, padding included; writing to them changes the rows."""
        return {
            part.name: rows[:, part.offset : part.offset + prod(part.stored)].view(-1, *part.stored)
            for part in self.parts
        }

    def parameters(self, row: Tensor) -> list[Tensor]:  # (P,) -> each (*shape)
        """Every parameter of one row, without its padding; writing to them changes the row."""
        found = []
        for part in self.parts:
            stored = row[part.offset : part.offset + prod(part.stored)].view(part.stored)
            found.append(stored[tuple(slice(size) for size in part.shape)])
        return found

    def pack(self, row: Tensor) -> Tensor:  # (P,) -> (numbers of the module,)
        """The numbers of the module alone, in its order: what a checkpoint holds."""
        return torch.cat([parameter.reshape(-1) for parameter in self.parameters(row)])

    def unpack(self, packed: Tensor, row: Tensor) -> None:  # (numbers of the module,), (P,)
        """Writes what `pack` returned into a row; its padding stays."""
        sizes = [prod(part.shape) for part in self.parts]
        for parameter, values in zip(self.parameters(row), torch.split(packed, sizes), strict=True):
            parameter.copy_(values.view(parameter.shape))


def layout(shapes: Sequence[tuple[str, tuple[int, ...]]], stored: StoredShapes | None = None) -> Layout:
    """The layout of parameters of these names and shapes; `stored` names the padded shape of those that are padded."""
    parts: list[Part] = []
    offset = 0
    for name, shape in shapes:
        padded = (stored or {}).get(name, shape)
        parts.append(Part(name, shape, padded, offset))
        offset = round_up(offset + prod(padded), _PARAMETER_MULTIPLE)
    return Layout(tuple(parts), max(_ROW_MULTIPLE, round_up(offset, _ROW_MULTIPLE)))


def rows_in_step(width: int) -> int:
    """The number of rows of `width` numbers whose multiples fill whole vectors."""
    return _ROW_MULTIPLE // gcd(_ROW_MULTIPLE, width)


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
