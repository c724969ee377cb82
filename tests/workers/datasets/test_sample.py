"""What a sample says of data whose structure is known, and that it depends on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from foretune.wire.datasets import Task
from metalearner import task_sample
from workers.datasets.builtin import load_builtin
from workers.datasets.dataset import Column, Dataset
from workers.datasets.meta_features import meta_features
from workers.datasets.sample import row_elements

CROWDING, MARGIN, AGREEMENT, LINEAR, SIZE, ROUGHNESS, LABEL, PEAKEDNESS = range(8)
GENERATOR = np.random.default_rng(0)


def table(X: NDArray[np.float64], y: NDArray[np.generic], task: Task = Task.CLASSIFICATION) -> Dataset:
    names = tuple(str(kind) for kind in np.unique(y)) if task is Task.CLASSIFICATION else ()
    columns = tuple(Column(f"x{number}") for number in range(X.shape[1]))
    kind = np.int64 if task is Task.CLASSIFICATION else np.float32
    return Dataset("t", task, "tabular", X.astype(np.float32), y.astype(kind), columns=columns, class_names=names)


def sample(dataset: Dataset) -> NDArray[np.float64]:
    found = task_sample.decode(meta_features(dataset))
    assert found is not None
    return found


def raw(X: NDArray[np.float64], y: NDArray[np.generic], task: Task = Task.CLASSIFICATION) -> NDArray[np.float64]:
    return row_elements(table(X, y, task), X, np.arange(len(X)))


def test_clusters_are_told_from_noise() -> None:
    y = np.arange(300) % 3
    apart = sample(table(GENERATOR.normal(size=(300, 4)) + 6.0 * y[:, None], y))
    mixed = sample(table(GENERATOR.normal(size=(300, 4)), y))
    for number in (MARGIN, AGREEMENT, LINEAR):
        assert apart[:, number].mean() > mixed[:, number].mean() + 0.3
    assert apart[:, AGREEMENT].mean() == pytest.approx(1.0, abs=0.05)
    assert abs(mixed[:, AGREEMENT].mean() + 1 / 3) < 0.2


def test_the_order_of_columns_and_the_names_of_classes_say_nothing() -> None:
    X, y = GENERATOR.normal(size=(80, 5)), GENERATOR.integers(0, 3, 80)
    np.testing.assert_allclose(raw(X, y), raw(X[:, ::-1], 2 - y), atol=1e-9)


def test_neighbours_and_linear_errors_agree_with_scikit_learn() -> None:
    X = GENERATOR.normal(size=(60, 4))
    y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3 * GENERATOR.normal(size=60)
    found = raw(X, y, Task.REGRESSION)
    # `float32` is what a data set keeps of its targets.
    z = y.astype(np.float32).astype(np.float64)
    z = (z - z.mean()) / z.std()
    near = NearestNeighbors(n_neighbors=10).fit(X).kneighbors(return_distance=False)
    agreement = np.clip(1.0 - ((z[:, None] - z[near]) ** 2).mean(1), -1.0, 1.0)
    np.testing.assert_allclose(found[:, AGREEMENT], agreement, atol=1e-9)
    for row in (0, 17, 59):
        # One fit without the row differs from the closed form only in the mean that it centres by.
        others = np.arange(60) != row
        missed = z[row] - Ridge(alpha=1.0).fit(X[others], z[others]).predict(X[[row]])[0]
        assert found[row, LINEAR] == pytest.approx(-abs(missed), abs=0.01)


def test_pictures_are_smooth_and_noise_is_not() -> None:
    digits = load_builtin("digits")
    noise = Dataset(
        "noise",
        Task.CLASSIFICATION,
        "image",
        GENERATOR.normal(size=digits.X.shape).astype(np.float32),
        digits.y,
        class_names=digits.class_names,
    )
    assert sample(digits)[:, ROUGHNESS].mean() < sample(noise)[:, ROUGHNESS].mean() - 0.2
    assert sample(load_builtin("iris"))[:, ROUGHNESS].any() == False  # noqa: E712 - an array's


def test_regular_texts_surprise_less_than_random_ones() -> None:
    def text(ids: NDArray[np.int64]) -> NDArray[np.float64]:
        nothing = np.zeros(0, np.int64)
        vocabulary = tuple("abcdefgh")
        return sample(
            Dataset("t", Task.LANGUAGE_MODELLING, "text", ids.astype(np.int32), nothing, vocabulary=vocabulary)
        )

    regular, random = text(np.arange(5000) % 8), text(GENERATOR.integers(0, 8, 5000))
    assert regular.shape == random.shape == (task_sample.ELEMENTS, task_sample.NUMBERS)
    assert regular[:, 1].mean() < random[:, 1].mean() - 1.0
    assert regular[:, 0].mean() == pytest.approx(np.log(8) - 2.0, abs=0.05)


@pytest.mark.parametrize("kinds", [1, 60])
def test_one_class_only_and_a_class_for_each_row(kinds: int) -> None:
    found = raw(GENERATOR.normal(size=(60, 3)), np.arange(60) % kinds)
    assert found.shape == (60, 8)
    assert np.isfinite(found).all()


def test_texts_and_tables_that_are_too_small_have_none() -> None:
    assert task_sample.FEATURE not in meta_features(table(np.zeros((2, 1)), np.arange(2)))
