"""What an expert's default says of the rest of the space: good settings are more likely near it than far from it.

Each dimension is believed in by itself: a number stands near the default (a normal around its place in the unit cube,
cut at the walls), a choice is the default's with probability one half; and one time in ten the default says nothing,
so that no setting is ruled out. The belief spreads the quasi-random start, and weighs the acquisition with a power
that fades with the number of results: Hvarfner et al. 2022 (πBO, arXiv 2204.11051, equation 6), which keeps the
guarantees of expected improvement. An experiment whose space has no default has no belief.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from metalearner import compiled_rows as loops
from metalearner.arrays import Array
from metalearner.encoding import Dimension, Encoding

_DEVIATION = 0.2
"""Of a number's place, where its range is 1."""
_SAME_CHOICE = 0.5
_SAYS_NOTHING = 0.1
_STRENGTH = 5.0
"""The power after n results is this over n: β in the paper, which takes a tenth of the trials of a whole search."""


class Belief:
    """Independent densities on the unit cube around `default`, a row (D,) that is NaN where inactive."""

    def __init__(self, encoding: Encoding, default: Array) -> None:
        self._table = encoding.table
        self._around = [
            (j, dimension, float(place))
            for j, (dimension, place) in enumerate(zip(encoding.dimensions, default, strict=True))
            if not math.isnan(place)
        ]
        self._densities = np.full((encoding.width, 3), np.nan)
        for j, dimension, place in self._around:
            self._densities[j] = place, *_densities(dimension, place)

    def spread(self, point: Array) -> Array:
        """A point of the cube (D,) moved so that evenly spread points are distributed as is believed: (D,)."""
        moved = point.copy()
        for j, dimension, place in self._around:
            moved[j] = _choice(dimension, place, point[j]) if dimension.unordered else _number(place, point[j])
        return moved

    def bonus(self, rows: Array, results: int) -> Array:
        """What is added to the logarithm of an acquisition after so many results: (m, D) -> (m,)."""
        believed = loops.log_beliefs(self._table, rows, self._densities, _SAYS_NOTHING, _DEVIATION)
        return _STRENGTH / max(results, 1) * believed


def _choice(dimension: Dimension, place: float, unit: float) -> float:
    """The default's choice for the first half of the unit, the others in their order for the second."""
    if unit < _SAME_CHOICE or dimension.levels < 2 or dimension.grid is None:
        return place
    others = [other for other in dimension.grid.tolist() if abs(other - place) > 1e-9]
    return float(others[int((unit - _SAME_CHOICE) / (1.0 - _SAME_CHOICE) * len(others))])


def _number(place: float, unit: float) -> float:
    if unit < _SAYS_NOTHING:
        return unit / _SAYS_NOTHING
    low, high = _walls(place)
    share = (unit - _SAYS_NOTHING) / (1.0 - _SAYS_NOTHING)
    return float(np.clip(place + _DEVIATION * ndtri(low + (high - low) * share), 0.0, 1.0))


def _walls(place: float) -> tuple[float, float]:
    """How much of the uncut normal lies below 0, and below 1."""
    return float(ndtr(-place / _DEVIATION)), float(ndtr((1.0 - place) / _DEVIATION))


def _densities(dimension: Dimension, place: float) -> tuple[float, float]:
    """Of a choice the density at the default's and elsewhere, relative to a flat one; of a number how much of the
    uncut normal lies within the walls, twice.
    """
    if dimension.unordered:
        others = max(1, dimension.levels - 1)
        return dimension.levels * _SAME_CHOICE, dimension.levels * (1.0 - _SAME_CHOICE) / others
    low, high = _walls(place)
    return high - low, high - low
