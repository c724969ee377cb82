"""From raw cells to what a network takes. Everything is fitted on the rows it is handed: the training part.

Numbers: z = (x - mean) / standard deviation (population, as scikit-learn's StandardScaler has it), missing cells
become 0, which is the mean. A table's z is cut to [-10, 10], so that one wrong cell cannot blow up a network, and a
column that misses values in training gets an indicator column beside it.
Categories: one-hot for the most frequent ones, one shared column for the rarer ones seen in training; a category
unseen in training is all zeros, and so is a missing one, which has its indicator.

Axes: N rows, F raw columns, D encoded columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.datasets.dataset import Column

CLIP = 10.0
MAX_ONE_HOT = 64
"""A category column gets at most this many columns of its own, fewer when the table would become too large."""

_MIN_ONE_HOT = 4
_ENCODED_CELLS = 200_000_000
_CHUNK_CELLS = 4_000_000
_SMALLEST_SCALE = 1e-12

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Standardization:
    """Mean and scale, float64, shaped to broadcast against the values; scale is 1 where all values were equal."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def apply(self, values: Floats) -> Floats:
        """z-scores of the same shape, float32, 0 where missing."""
        result = np.empty(values.shape, dtype=np.float32)
        for rows in _chunks(values):
            z = (values[rows] - self.mean) / self.scale
            result[rows] = np.nan_to_num(z, nan=0.0)
        return result


def fit_standardization(values: Floats, feature_axis: int) -> Standardization:
    """Statistics over every axis but `feature_axis`; NaN does not count. Two passes, so that no digits are lost."""
    axes = tuple(axis for axis in range(values.ndim) if axis != feature_axis)
    shape = tuple(length if axis == feature_axis else 1 for axis, length in enumerate(values.shape))
    count = np.zeros(shape)
    total = np.zeros(shape)
    for rows in _chunks(values):
        part = values[rows]
        count += (~np.isnan(part)).sum(axis=axes, keepdims=True)
        total += np.nansum(part, axis=axes, keepdims=True, dtype=np.float64)
    count = np.maximum(count, 1.0)
    mean = total / count
    squares = np.zeros(shape)
    for rows in _chunks(values):
        squares += np.nansum((values[rows] - mean) ** 2, axis=axes, keepdims=True)
    scale = np.sqrt(squares / count)
    # What is left of rounding in a constant column is no spread.
    constant = scale <= np.maximum(_SMALLEST_SCALE, np.abs(mean) * np.finfo(np.float32).eps)
    return Standardization(mean[0], np.where(constant, 1.0, scale)[0])


@dataclass(frozen=True, eq=False)
class _CategoryCode:
    own: NDArray[np.int64]  # (categories,) encoded column of each category, -1 if it was not seen
    width: int


@dataclass(frozen=True, eq=False)
class TableEncoding:
    """A fitted encoding of a table; `names` (D,) says what each encoded column is."""

    numeric: NDArray[np.int64]  # positions among the F columns
    standardization: Standardization
    categorical: dict[int, _CategoryCode]
    indicators: NDArray[np.int64]  # columns that get a missing indicator
    names: tuple[str, ...]

    def apply(self, X: Floats) -> Floats:  # (N, F) -> (N, D)
        """The encoded rows: numeric columns first, then categories, then missing indicators."""
        result = np.zeros((len(X), len(self.names)), dtype=np.float32)
        start = len(self.numeric)
        if start:
            numbers = X if start == X.shape[1] else X[:, self.numeric]
            np.clip(self.standardization.apply(numbers), -CLIP, CLIP, out=result[:, :start])
        for position, code in self.categorical.items():
            present = np.flatnonzero(~np.isnan(X[:, position]))
            own = code.own[X[present, position].astype(np.int64)]
            seen = own >= 0
            result[present[seen], start + own[seen]] = 1.0
            start += code.width
        result[:, start:] = np.isnan(X[:, self.indicators])
        return result


def fit_table(X: Floats, columns: tuple[Column, ...]) -> TableEncoding:  # X (N, F)
    """Fits means, scales, categories and indicators on the rows of X."""
    numeric = np.array([i for i, column in enumerate(columns) if column.kind == "numeric"], dtype=np.int64)
    numbers = X if len(numeric) == X.shape[1] else X[:, numeric]
    names = [columns[position].name for position in numeric]
    categorical: dict[int, _CategoryCode] = {}
    top = _one_hot_limit(len(X), len(numeric), [len(c.categories) for c in columns if c.kind == "categorical"])
    for position, column in enumerate(columns):
        if column.kind == "categorical":
            code, labels = _fit_categories(X[:, position], column, top)
            categorical[position] = code
            names += labels
    indicators = np.flatnonzero(np.isnan(X).any(axis=0))
    names += [f"{columns[position].name} is missing" for position in indicators]
    return TableEncoding(numeric, fit_standardization(numbers, 1), categorical, indicators, tuple(names))


def _fit_categories(cells: Floats, column: Column, top: int) -> tuple[_CategoryCode, list[str]]:
    present = cells[~np.isnan(cells)].astype(np.int64)
    counts = np.bincount(present, minlength=len(column.categories))
    seen = np.flatnonzero(counts)
    frequent = seen[np.argsort(-counts[seen], kind="stable")][:top]
    frequent.sort()
    own = np.full(len(column.categories), -1, dtype=np.int64)
    own[frequent] = np.arange(len(frequent))
    labels = [f"{column.name} = {column.categories[category]}" for category in frequent]
    if len(seen) > len(frequent):
        own[np.setdiff1d(seen, frequent)] = len(frequent)
        labels.append(f"{column.name} is rare")
    return _CategoryCode(own, len(labels)), labels


def _one_hot_limit(rows: int, numeric: int, cardinalities: list[int]) -> int:
    top = MAX_ONE_HOT
    while top > _MIN_ONE_HOT and rows * (numeric + sum(min(c, top + 1) for c in cardinalities)) > _ENCODED_CELLS:
        top //= 2
    return top


def _chunks(values: Floats) -> list[slice]:
    """Slices of rows small enough that float64 copies of one fit anywhere."""
    rows = max(1, _CHUNK_CELLS // max(1, int(np.prod(values.shape[1:], dtype=np.int64))))
    return [slice(start, start + rows) for start in range(0, len(values), rows)]
