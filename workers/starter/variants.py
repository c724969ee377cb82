"""Seeded variants of a data set. Each is a task of its own: another size, another noise, another question.

Axes: N rows, F features.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset

Change: TypeAlias = Callable[[Dataset, np.random.Generator], Dataset]

_FEWEST_ROWS = 60
_FEWEST_FEATURES = 4


def variants(dataset: Dataset) -> Iterator[Dataset]:
    """The data set itself, then its variants, named `name.variant`; equal data give equal variants."""
    yield dataset
    changes = _TEXT if dataset.modality == "text" else _ROWS | (_TABLE if dataset.modality == "tabular" else _IMAGE)
    for name, change in changes.items():
        named = f"{dataset.name}.{name}"
        generator = np.random.default_rng(zlib.crc32(named.encode()))
        made = change(dataset, generator)
        if made is not dataset:
            yield replace(made, name=named)


def thinned(dataset: Dataset, rows: int) -> Dataset:
    """So many rows of the data set, always the same ones."""
    order = np.random.default_rng(zlib.crc32(dataset.name.encode())).permutation(dataset.rows)
    return _rows(dataset, np.sort(order[:rows]))


def _part(share: float) -> Change:
    def change(dataset: Dataset, generator: np.random.Generator) -> Dataset:
        count = round(share * dataset.rows)
        if count < _FEWEST_ROWS:
            return dataset
        return _rows(dataset, np.sort(generator.permutation(dataset.rows)[:count]))

    return change


def _label_noise(share: float) -> Change:
    def change(dataset: Dataset, generator: np.random.Generator) -> Dataset:
        """So many of the targets are those of other rows."""
        y = dataset.y.copy()
        moved = np.flatnonzero(generator.random(len(y)) < share)
        y[moved] = y[generator.permutation(moved)]
        return replace(dataset, y=y)

    return change


def _feature_noise(deviations: float) -> Change:
    def change(dataset: Dataset, generator: np.random.Generator) -> Dataset:
        X = np.asarray(dataset.X, dtype=np.float32)
        spread = X.std(axis=0, keepdims=True) if dataset.modality == "tabular" else X.std()
        return replace(dataset, X=(X + deviations * spread * generator.standard_normal(X.shape)).astype(np.float32))

    return change


def _half_the_features(dataset: Dataset, generator: np.random.Generator) -> Dataset:
    count = dataset.features // 2
    if count < _FEWEST_FEATURES:
        return dataset
    kept = np.sort(generator.permutation(dataset.features)[:count])
    return replace(dataset, X=dataset.X[:, kept], columns=tuple(dataset.columns[column] for column in kept.tolist()))


def _half_the_classes(dataset: Dataset, generator: np.random.Generator) -> Dataset:
    classes = len(dataset.class_names)
    if classes < 4:
        return dataset
    kept = np.sort(generator.permutation(classes)[: classes // 2])
    rows = np.flatnonzero(np.isin(dataset.y, kept))
    y = np.searchsorted(kept, dataset.y[rows]).astype(np.int64)
    names = tuple(dataset.class_names[kind] for kind in kept.tolist())
    return replace(dataset, X=dataset.X[rows], y=y, class_names=names)


def _one_against_the_rest(dataset: Dataset, generator: np.random.Generator) -> Dataset:
    classes = len(dataset.class_names)
    if classes < 3:
        return dataset
    chosen = int(generator.integers(classes))
    names = ("other", dataset.class_names[chosen])
    return replace(dataset, y=(dataset.y == chosen).astype(np.int64), class_names=names)


def _above_the_median(dataset: Dataset, _: np.random.Generator) -> Dataset:
    if dataset.task is not Task.REGRESSION:
        return dataset
    y = (dataset.y > np.median(dataset.y)).astype(np.int64)
    return replace(dataset, task=Task.CLASSIFICATION, y=y, class_names=("low", "high"))


def _column(position: int) -> Change:
    def change(dataset: Dataset, _: np.random.Generator) -> Dataset:
        """A feature is what is asked for; the rest tells, the old target too."""
        if dataset.features <= _FEWEST_FEATURES - 1:
            return dataset
        asked = position % dataset.features
        kept = [column for column in range(dataset.features) if column != asked]
        X = np.concatenate([dataset.X[:, kept], dataset.y[:, None].astype(np.float32)], axis=1)
        columns = (*(dataset.columns[column] for column in kept), Column(str(dataset.target_name)))
        return replace(
            dataset,
            task=Task.REGRESSION,
            X=X,
            y=np.asarray(dataset.X[:, asked], dtype=np.float32),
            columns=columns,
            target_name=dataset.columns[asked].name,
            class_names=(),
        )

    return change


def _text_part(start: float, share: float) -> Change:
    def change(dataset: Dataset, _: np.random.Generator) -> Dataset:
        begin = round(start * dataset.rows)
        return _rows(dataset, np.arange(begin, begin + round(share * dataset.rows)))

    return change


def _rows(dataset: Dataset, kept: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> Dataset:
    return replace(dataset, X=dataset.X[kept], y=dataset.y[kept] if dataset.y.size else dataset.y)


_ROWS: dict[str, Change] = {
    "half": _part(0.5),
    "label-noise-10": _label_noise(0.1),
    "label-noise-30": _label_noise(0.3),
    "feature-noise": _feature_noise(0.5),
    "one-against-rest": _one_against_the_rest,
    "half-the-classes": _half_the_classes,
}
_TABLE: dict[str, Change] = {
    "half-the-features": _half_the_features,
    "above-median": _above_the_median,
    "column-0": _column(0),
    "column-3": _column(3),
    "column-7": _column(7),
}
_IMAGE: dict[str, Change] = {"quarter": _part(0.25), "loud": _feature_noise(1.0)}
_TEXT: dict[str, Change] = {"first-half": _text_part(0.0, 0.5), "second-half": _text_part(0.5, 0.5)}
