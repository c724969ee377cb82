"""The loops of rows, compiled: positions that a parameter can have, features, and what a search tries next. `encoding`,
`search` and `expert` say what they compute, in whose symbols this is written.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from metalearner.arrays import Array, Index
from metalearner.compiling import compiled

_AT = 1e-9
"""Positions nearer than this are the same."""
NUMBER, IS_SECOND, IS_AT = range(3)
SAME = 1e-6
"""Rows nearer than this in every dimension are the same configuration for all that a trial could tell."""


class Table(NamedTuple):
    """A space in arrays."""

    dimensions: Index  # (D, 3): levels (0: a real number); whether unordered; where its positions begin in `grid`
    grid: Array  # the positions of all discrete dimensions, one dimension after another
    thresholds: Array  # as long: behind each position where it gives way to the next, infinity behind the last
    columns: (
        Index  # (P, 2): a feature's dimension, and what it tells of that: a number, which of two, if it is at `places`
    )
    places: Array  # (P,)
    conditions: Index  # (C, 5): dimensions from, to are active where this parent stands at `positions` from, to
    positions: Array


class Draws(NamedTuple):
    """Random numbers for the moves of m candidates, uniform in [0, 1) if not said otherwise."""

    sizes: Array  # (m,): of their steps
    spread: Array  # (m, D): whether a dimension moves
    turns: Array  # (m, D): whether a discrete value does, too
    places: Array  # (m, D): where to, if anywhere
    wide: Array  # (m,): whether all dimensions may move
    sure: Index  # (m,): a dimension that moves in any case
    normals: Array  # (m, D): standard normal
    hops: Array  # (m, D): by how many levels an ordered value moves


@compiled
def _copy(row: Array, to: Array) -> None:
    for j in range(len(row)):
        to[j] = row[j]


@compiled
def _snap(table: Table, row: Array) -> None:
    """To the nearest values that the dimensions can have. NaN stays."""
    for j in range(len(row)):
        if math.isnan(row[j]):
            continue
        value = min(max(row[j], 0.0), 1.0)
        levels, first = table.dimensions[j, 0], table.dimensions[j, 2]
        if levels:
            low, high = first, first + levels - 1
            while low < high:
                middle = (low + high) // 2
                if table.thresholds[middle] < value:
                    low = middle + 1
                else:
                    high = middle
            value = table.grid[low]
        row[j] = value


@compiled
def _still(table: Table, row: Array) -> None:
    """NaN where inactive."""
    for i in range(len(table.conditions)):
        begin, end, parent, first, last = table.conditions[i]
        held = False
        for k in range(first, last):
            held |= abs(row[parent] - table.positions[k]) < _AT  # NaN compares false
        for j in range(begin, end):
            row[j] = row[j] if held else np.nan


@compiled
def rows_at(table: Table, points: Array, active: bool) -> Array:
    """(m, D) -> (m, D). What is `active` is so whatever its parents are."""
    result = np.empty_like(points)
    for i in range(len(result)):
        _copy(points[i], result[i])
        _snap(table, result[i])
        if not active:
            _still(table, result[i])
    return result


@compiled
def features(table: Table, rows: Array) -> Array:
    """(m, D) -> (m, P)."""
    result = np.empty((len(rows), len(table.columns)))
    for i in range(len(rows)):
        for p in range(result.shape[1]):
            dimension, kind = table.columns[p]
            value = rows[i, dimension]
            if kind == IS_AT:
                value = math.sqrt(0.5) if abs(value - table.places[p]) < SAME else 0.0  # NaN compares false
            elif math.isnan(value):
                value = 0.5
            elif kind == IS_SECOND:
                value = 1.0 if value >= 0.5 else 0.0
            result[i, p] = value
    return result


@compiled
def _move(table: Table, row: Array, draws: Draws, at: int) -> None:
    """Moves a row (D,) as candidate number `at` moves; see `search`."""
    width = len(row)
    chance = min(1.0, 2.0 / width) if width > 2 else 0.7
    share, calm = chance if draws.wide[at] < 0.5 else 1.0, max(0.5, 1.0 / width)
    for j in range(width):
        levels, value = table.dimensions[j, 0], row[j]
        if math.isnan(value):
            row[j] = draws.places[at, j]
            continue
        moves = draws.spread[at, j] < share or draws.sure[at] == j
        if not moves or (levels and draws.turns[at, j] >= calm):
            continue
        if table.dimensions[j, 1]:
            row[j] = draws.places[at, j]
            continue
        step = draws.sizes[at] * draws.normals[at, j]
        if levels:
            hop = draws.hops[at, j] / levels
            step = step if abs(step) > abs(hop) else hop
        # Mirrored at the walls, so that they attract no more than they should.
        value = abs(value + step)
        row[j] = min(value, 2.0 - value)


@compiled
def pool(table: Table, points: Array, incumbents: Array, chosen: Index, draws: Draws) -> Array:
    """Rows at `points` (u, D), and rows moved from the `chosen` (m,) ones of `incumbents`, by the first draws:
    (u + m, D).
    """
    count = len(points)
    result = np.empty((count + len(chosen), points.shape[1]))
    for i in range(len(result)):
        if i < count:
            _copy(points[i], result[i])
        else:
            _copy(incumbents[chosen[i - count]], result[i])
            _move(table, result[i], draws, i - count)
        _snap(table, result[i])
        _still(table, result[i])
    return result


@compiled
def near(table: Table, starts: Array, each: int, draws: Draws, first: int) -> Array:
    """Rows moved from `starts` (k, D), from each so many, by the draws from number `first`: (k each, D)."""
    result = np.empty((len(starts) * each, starts.shape[1]))
    for i in range(len(result)):
        _copy(starts[i // each], result[i])
        _move(table, result[i], draws, first + i)
        _snap(table, result[i])
        _still(table, result[i])
    return result


@compiled
def climb(starts: Array, heights: Array, rows: Array, values: Array) -> None:
    """Puts in the place of each of the starts (k, D) the best of its own rows (k each, D), where that is higher."""
    each = len(rows) // len(starts)
    for i in range(len(starts)):
        for place in range(i * each, (i + 1) * each):
            if values[place] > heights[i]:
                heights[i] = values[place]
                _copy(rows[place], starts[i])


@compiled
def log_beliefs(table: Table, rows: Array, belief: Array, nothing: float, deviation: float) -> Array:
    """The logarithm of the density that is believed in: (m, D) -> (m,). `belief` (D, 3): the default's place, NaN where
    it has none; of a number how much of the normal lies within the walls; of a choice the density there and elsewhere.
    """
    result = np.zeros(len(rows))
    scale = 1.0 / (deviation * math.sqrt(2.0 * math.pi))
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            place, inside, outside = belief[j]
            value = rows[i, j]
            if math.isnan(place) or math.isnan(value):
                continue
            if table.dimensions[j, 1]:
                result[i] += math.log(inside if abs(value - place) < _AT else outside)
            else:
                z = (value - place) / deviation
                result[i] += math.log(nothing + (1.0 - nothing) * scale * math.exp(-0.5 * z * z) / inside)
    return result


@compiled
def is_among(row: Array, others: Array) -> bool:
    """Whether `row` (D,) is the same as one of `others` (m, D): everywhere nearer than what a trial could tell, or
    inactive in both.
    """
    for i in range(len(others)):
        same = True
        for j in range(len(row)):
            here, there = row[j], others[i, j]
            # After the first dimension next to none of a long history is left.
            if not (abs(here - there) < SAME or (math.isnan(here) and math.isnan(there))):
                same = False
                break
        if same:
            return True
    return False
