"""The built-in data sets, against scikit-learn's own arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from foretune.errors import NotFound
from foretune.wire.datasets import Task
from workers.datasets.builtin import BUILTIN_NAMES, load_builtin


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1797, 1, 8, 8), 10),
        ("breast_cancer", (569, 30), 2),
        ("wine", (178, 13), 3),
        ("iris", (150, 4), 3),
        ("diabetes", (442, 10), None),
    ],
)
def test_built_in_data(name: str, shape: tuple[int, ...], classes: int | None) -> None:
    dataset = load_builtin(name)
    assert (dataset.name, dataset.X.shape, dataset.classes) == (name, shape, classes)
    assert dataset.content_hash == load_builtin(name).content_hash


def test_every_name_loads() -> None:
    assert [load_builtin(name).name for name in BUILTIN_NAMES] == list(BUILTIN_NAMES)


def test_values_are_scikit_learns() -> None:
    digits = datasets.load_digits()
    ours = load_builtin("digits")
    np.testing.assert_array_equal(ours.X[:, 0] * 16, digits.images.astype(np.float32))
    np.testing.assert_array_equal(ours.y, digits.target)
    diabetes = load_builtin("diabetes")
    assert diabetes.task is Task.REGRESSION
    np.testing.assert_array_equal(diabetes.y, datasets.load_diabetes().target.astype(np.float32))
    np.testing.assert_array_equal(diabetes.X, datasets.load_diabetes(scaled=False).data.astype(np.float32))
    assert load_builtin("iris").class_names == ("setosa", "versicolor", "virginica")


def test_an_unknown_name_is_not_found() -> None:
    with pytest.raises(NotFound, match="no built-in data set 'mnist'; there are digits"):
        load_builtin("mnist")


def test_reading_uploads_needs_neither_scikit_learn_nor_torch() -> None:
    program = (
        "import sys, workers.datasets.parse, workers.datasets.builtin, workers.datasets.meta_features\n"
        "sys.exit(sum(name in sys.modules for name in ('sklearn', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
