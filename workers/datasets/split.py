"""Which rows train and which validate.

The random stream is PCG64's raw output (`random_raw`), which numpy guarantees to stay the same for ever, and not
`Generator.permutation` or a library's splitter, whose results may change with a version. So a split depends on the
content of the data set and the seed, and on nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Dataset

Rows: TypeAlias = NDArray[np.int64]

DEFAULT_VALIDATION_FRACTION = 0.2
_QUANTILE_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the two parts, ascending; disjoint, and together all rows."""

    train: Rows  # (N_train,)
    validation: Rows  # (N_validation,)


def split(dataset: Dataset, seed: int, validation_fraction: float = DEFAULT_VALIDATION_FRACTION) -> Split:
    """A seeded, stratified split.

    Classes keep their shares; a class with at least two rows has one on each side, and a single row trains.
    Regression is stratified on target quantiles. The last part of a text validates, whatever the seed: shuffled
    characters are no text. Raises InvalidDataset with fewer than two rows, ValueError on a fraction outside (0, 1).
    """
    if not 0.0 < validation_fraction < 1.0:
        raise ValueError(f"validation_fraction must lie between 0 and 1, not {validation_fraction}")
    rows = dataset.rows
    if rows < 2:
        raise InvalidDataset(f"data set {dataset.name!r} has {rows} row(s): too few to split")
    wanted = min(rows - 1, max(1, round(rows * validation_fraction)))
    if dataset.modality == "text":
        numbers = np.arange(rows, dtype=np.int64)
        return Split(train=numbers[: rows - wanted], validation=numbers[rows - wanted :])
    groups = dataset.y if dataset.task is Task.CLASSIFICATION else _quantile_groups(dataset.y)
    order = random_order(f"split/{dataset.content_hash}/{seed}", rows)
    validates = np.zeros(rows, dtype=bool)
    by_group = order[np.argsort(groups[order], kind="stable")]  # random within each group
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    for start, taken in zip(starts, _allocate(counts, wanted), strict=True):
        validates[by_group[start : start + taken]] = True
    return Split(train=np.flatnonzero(~validates), validation=np.flatnonzero(validates))


def random_order(stream: str, length: int) -> Rows:
    """A permutation of 0 … length - 1 that depends on the text `stream` alone."""
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "little")
    # Two equal 64-bit draws keep their order, so the result is the same everywhere.
    return np.argsort(np.random.PCG64(seed).random_raw(length), kind="stable").astype(np.int64)


def _quantile_groups(y: NDArray[np.generic]) -> Rows:
    """About ten groups of equal size by rank of y, each large enough to give at least one row to validation."""
    groups = max(1, min(_QUANTILE_GROUPS, len(y) // 5))
    ranks = np.empty(len(y), dtype=np.int64)
    ranks[np.argsort(y, kind="stable")] = np.arange(len(y))
    return ranks * groups // len(y)


def _allocate(counts: Rows, wanted: int) -> Rows:
    """How many rows each group gives to validation: shares by largest remainder, at least 1 and at most count - 1.

    A group of one gives none, unless no group could give any.
    """
    lowest = np.minimum(1, counts - 1)
    highest = counts - 1
    if highest.sum() == 0:
        lowest = np.zeros_like(counts)
        highest = counts
    total = counts.sum()
    taken = np.clip(counts * wanted // total, lowest, highest)
    for group in np.argsort(-(counts * wanted % total), kind="stable"):
        if taken.sum() >= wanted:
            break
        # Rows that lone classes cannot give are not taken from others beyond their share rounded up.
        if taken[group] < highest[group] and taken[group] * total < counts[group] * wanted:
            taken[group] += 1
    return np.asarray(taken, dtype=np.int64)
