"""Configurations as numbers: rows of the unit cube, snapped to what a parameter can be, and features for a kernel.

Symbols: D dimensions of the space, P feature columns, m rows.
A *row* is (D,): a unit vector whose discrete entries are exact grid positions and whose inactive entries are NaN.
*Features* are (P,): a number for each numeric dimension (0.5 where inactive: the middle, so that inactivity is as
near to every value as can be), {0, 1} for a choice of two, and for k > 2 unordered choices k indicators of 1/sqrt(2),
so that the squared distance of two different choices is 1 (an overlap kernel) and of a choice to an inactive one 1/2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foretune.errors import ForetuneError, InvalidConfiguration
from foretune.json_types import JsonValue
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter, Configuration, Space
from metalearner import compiled_rows as loops
from metalearner.arrays import Array, Index, Mask

_MAX_GRID = 1024
"""An integer with more values than this is searched as a real number and rounded at the end."""
_KEPT = 64
"""So many encodings are kept for the next who asks."""


@dataclass(frozen=True)
class Dimension:
    """One dimension of the cube. `grid` holds the possible positions in order; None for a real number."""

    grid: Array | None  # (levels,)
    thresholds: Array | None  # (levels - 1,): where one level gives way to the next
    unordered: bool

    @property
    def levels(self) -> int:
        """Number of different values; 0 for a real number."""
        return 0 if self.grid is None else len(self.grid)


@dataclass(frozen=True)
class _Condition:
    """Dimensions `child` are active only where dimension `parent` stands at one of `positions`."""

    child: slice
    parent: int
    positions: Array


class Encoding:
    """The numeric view of one space. It never changes, so `of` gives everybody the same one."""

    @classmethod
    def of(cls, space: Space) -> Encoding:
        """The encoding of an equal space, made once a process."""
        key = _key(space)
        known = _made.get(key)
        if known is None:
            known = _made[key] = cls(space)
            while len(_made) > _KEPT:
                _made.pop(next(iter(_made)), None)
        return known

    def __init__(self, space: Space) -> None:
        self.space = space
        self.dimensions: list[Dimension] = []
        for parameter in space.parameters:
            self.dimensions.extend(_dimensions_of(parameter))
        self.levels: Index = np.array([dimension.levels for dimension in self.dimensions], dtype=np.intp)
        self.unordered: Mask = np.array([dimension.unordered for dimension in self.dimensions], dtype=bool)
        self.continuous: Index = np.flatnonzero(self.levels == 0)
        self.ordered: Index = np.flatnonzero((self.levels > 0) & ~self.unordered)
        """Discrete dimensions whose values stand in an order."""
        columns = [self.levels[j] if _indicators(one) else 1 for j, one in enumerate(self.dimensions)]
        self.groups: Index = np.repeat(np.arange(len(columns)), columns)
        """Which dimension each feature column belongs to: (P,)."""
        self.table = _table(self.dimensions, _conditions(space, self.dimensions))

    @cached_property
    def key(self) -> str:
        """Equal for equal spaces."""
        return _key(self.space)

    @property
    def width(self) -> int:
        """D."""
        return len(self.dimensions)

    def encode(self, configuration: Configuration) -> Array:
        """The row of a configuration: (D,). Raises InvalidConfiguration for a value that the space does not know."""
        return np.asarray(self.encode_all([configuration])[0])

    def encode_all(self, configurations: Sequence[Configuration]) -> Array:
        """The rows of m configurations: (m, D). Raises InvalidConfiguration as `encode` does."""
        units = [[math.nan] * self.width for _ in configurations]
        for parameter in self.space.parameters:
            name, place = parameter.name, self.space.slices[parameter.name]
            active = [i for i, configuration in enumerate(configurations) if name in configuration]
            for i, unit in zip(active, _units(parameter, [configurations[i][name] for i in active]), strict=True):
                units[i][place] = unit
        return loops.rows_at(self.table, np.array(units, dtype=np.float64).reshape(len(units), self.width), True)

    def decode(self, row: Array) -> Configuration:
        """The configuration at a row: (D,) -> values of the active parameters."""
        return self.space.from_unit(row.tolist())

    def rows(self, points: Array) -> Array:
        """Points of the cube as rows: (m, D) -> (m, D), snapped, NaN where inactive."""
        return loops.rows_at(self.table, np.ascontiguousarray(points), False)

    def features(self, rows: Array) -> Array:
        """Rows as kernel features: (m, D) -> (m, P)."""
        return loops.features(self.table, np.ascontiguousarray(rows))


_made: dict[str, Encoding] = {}


def _key(space: Space) -> str:
    return json.dumps(space.to_json(), sort_keys=True)


def comparable(rows: Array) -> Array:
    """Rows with -1 for inactive entries, so that they can be compared: (m, D) -> (m, D)."""
    return np.where(np.isnan(rows), -1.0, rows)


def is_among(row: Array, others: Array) -> bool:
    """Whether `row` (D,) is the same configuration as one of `others` (m, D)."""
    return loops.is_among(row, others)


def among(rows: Array, few: Array) -> Mask:
    """Which of the `rows` (m, D) are the same configuration as one of a `few` (k, D), all comparable: (m,)."""
    found = np.zeros(len(rows), dtype=bool)
    for row in few:
        found |= (np.abs(rows - row) < loops.SAME).all(1)
    return found


def _units(parameter: AnyParameter, values: Sequence[JsonValue]) -> list[list[float]]:
    """Where the values stand in the cube, each different one of few looked up once. Raises InvalidConfiguration."""
    try:
        if isinstance(parameter, Float):
            return [[unit] for unit in parameter.to_units(values)]
        if isinstance(parameter, Schedule):
            return [parameter.to_unit(value) for value in values]
        # True and 1 are different choices, and equal keys.
        known = {key: parameter.to_unit(key[1]) for key in {(type(value), value) for value in values}}
        return [known[type(value), value] for value in values]
    except (ForetuneError, ValueError, TypeError) as error:
        raise InvalidConfiguration(f"a value of {parameter.name!r} is none of this space: {error}") from error


def _indicators(dimension: Dimension) -> bool:
    return dimension.unordered and dimension.levels > 2


def _dimensions_of(parameter: AnyParameter) -> list[Dimension]:
    match parameter:
        case Categorical() | Bool():
            count = len(parameter.choices) if isinstance(parameter, Categorical) else 2
            grid = (np.arange(count) + 0.5) / count
            ordered = isinstance(parameter, Categorical) and parameter.ordered
            return [Dimension(grid, np.arange(1, count) / count, not ordered)]
        case Int() | Float(step=float()):
            step = float(parameter.step or 1)
            count = int((parameter.high - parameter.low) / step + 1e-9) + 1
            if count > _MAX_GRID:
                return [Dimension(None, None, False)]
            levels = [parameter.low + i * step for i in range(count)]
            grid = np.array([parameter.to_unit(level)[0] for level in levels])
            between = [level + 0.5 * step for level in levels[:-1]]
            thresholds = np.array([parameter.to_unit(level)[0] for level in between])
            return [Dimension(grid, thresholds, False)]
        case _:
            return [Dimension(None, None, False)] * parameter.dimensions


def _table(dimensions: Sequence[Dimension], conditions: Sequence[_Condition]) -> loops.Table:
    grids = [np.empty(0) if one.grid is None else one.grid for one in dimensions]
    thresholds = [[*one.thresholds.tolist(), math.inf] for one in dimensions if one.thresholds is not None]
    begins = np.cumsum([0, *map(len, grids)]).tolist()
    kinds, places = [], []
    for j, one in enumerate(dimensions):
        if one.grid is not None and _indicators(one):
            kinds += [(j, loops.IS_AT)] * one.levels
            places += one.grid.tolist()
        else:
            kinds.append((j, loops.IS_SECOND if one.unordered and one.levels == 2 else loops.NUMBER))
            places.append(0.0)
    spans = np.cumsum([0, *(len(one.positions) for one in conditions)]).tolist()
    return loops.Table(
        dimensions=np.array(
            [[one.levels, one.unordered, begin] for one, begin in zip(dimensions, begins, strict=False)], dtype=np.intp
        ).reshape(-1, 3),
        grid=np.concatenate([np.empty(0), *grids]),
        thresholds=np.array([one for some in thresholds for one in some], dtype=np.float64),
        columns=np.array(kinds, dtype=np.intp).reshape(-1, 2),
        places=np.array(places, dtype=np.float64),
        conditions=np.array(
            [(one.child.start, one.child.stop, one.parent, *spans[i : i + 2]) for i, one in enumerate(conditions)],
            dtype=np.intp,
        ).reshape(-1, 5),
        positions=np.concatenate([np.empty(0), *(one.positions for one in conditions)]),
    )


def _conditions(space: Space, dimensions: Sequence[Dimension]) -> list[_Condition]:
    """One for each parent of each conditional parameter, parents before children."""
    result = []
    for parameter in space.parameters:
        for parent, allowed in (parameter.when or {}).items():
            j = space.slices[parent].start
            result.append(
                _Condition(space.slices[parameter.name], j, _positions(space, parent, allowed, dimensions[j]))
            )
    return result


def _positions(space: Space, parent: str, allowed: Sequence[JsonValue], dimension: Dimension) -> Array:
    parameter = space.by_name[parent]
    units = np.array([parameter.to_unit(value)[0] for value in allowed])
    if dimension.grid is None or dimension.thresholds is None:
        return units
    return dimension.grid[np.searchsorted(dimension.thresholds, units)]
