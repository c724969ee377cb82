"""The data sets that come with scikit-learn, which is imported only when one is loaded."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from foretune.errors import NotFound
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset

BUILTIN_NAMES: tuple[str, ...] = ("digits", "breast_cancer", "wine", "iris", "diabetes")

_DIGITS_LARGEST_PIXEL = 16.0


class _Bunch(Protocol):
    data: NDArray[np.float64]
    target: NDArray[np.float64]
    feature_names: list[str]
    target_names: list[str]


def load_builtin(name: str) -> Dataset:
    """The built-in data set called `name`. Raises NotFound for any other name.

    `digits` are images (1797, 1, 8, 8) in [0, 1]; `diabetes` is a regression on unscaled measurements; the others
    are tables of measurements with classes.
    """
    if name not in BUILTIN_NAMES:
        raise NotFound(f"there is no built-in data set {name!r}; there are {', '.join(BUILTIN_NAMES)}")
    if name == "digits":
        return _digits()
    from sklearn import datasets

    if name == "diabetes":
        return _table(name, cast(_Bunch, datasets.load_diabetes(scaled=False)), Task.REGRESSION)
    return _table(name, cast(_Bunch, getattr(datasets, f"load_{name}")()), Task.CLASSIFICATION)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = cast(_Bunch, load_digits())
    pixels = (bunch.data / _DIGITS_LARGEST_PIXEL).astype(np.float32).reshape(-1, 1, 8, 8)
    return Dataset(
        name="digits",
        task=Task.CLASSIFICATION,
        modality="image",
        X=pixels,
        y=bunch.target.astype(np.int64),
        target_name="digit",
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _table(name: str, bunch: _Bunch, task: Task) -> Dataset:
    classifies = task is Task.CLASSIFICATION
    return Dataset(
        name=name,
        task=task,
        modality="tabular",
        X=bunch.data.astype(np.float32),
        y=bunch.target.astype(np.int64) if classifies else bunch.target.astype(np.float32),
        columns=tuple(Column(str(feature)) for feature in bunch.feature_names),
        target_name="target",
        class_names=tuple(str(label) for label in bunch.target_names) if classifies else (),
    )
