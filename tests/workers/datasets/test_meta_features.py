"""What describes a data set, against independent answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from foretune.wire.datasets import Task
from workers.datasets.builtin import BUILTIN_NAMES, load_builtin
from workers.datasets.dataset import Column, Dataset
from workers.datasets.meta_features import meta_features as described

SAMPLE = "sample"


def meta_features(dataset: Dataset, seed: int = 0) -> dict[str, float]:
    """The numbers alone."""
    return {name: value for name, value in described(dataset, seed).items() if isinstance(value, float)}


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_built_in_data_have_the_same_keys_and_finite_values(name: str) -> None:
    found = described(load_builtin(name))
    assert found.keys() == described(load_builtin("iris")).keys()
    assert [key for key, value in found.items() if type(value) is not float] == [SAMPLE]
    assert all(math.isfinite(value) for value in meta_features(load_builtin(name)).values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_distributions_agree_with_scipy_and_scikit_learn() -> None:
    wine = load_builtin("wine")
    found = meta_features(wine)
    X = wine.X.astype(np.float64)
    skewness, kurtosis = stats.skew(X), stats.kurtosis(X)
    assert found["skewness_median"] == pytest.approx(np.median(skewness), rel=1e-5)
    assert found["skewness_q75"] == pytest.approx(np.quantile(skewness, 0.75), rel=1e-5)
    assert found["kurtosis_q25"] == pytest.approx(np.quantile(kurtosis, 0.25), rel=1e-5)
    correlation = np.abs(np.corrcoef(X.T))[np.triu_indices(13, 1)]
    assert found["mean_absolute_correlation"] == pytest.approx(correlation.mean(), rel=1e-5)
    components = PCA(0.95).fit(StandardScaler().fit_transform(X)).n_components_
    assert found["pca_95_ratio"] == components / 13
    shares = np.bincount(wine.y) / len(wine.y)
    assert found["class_entropy"] == pytest.approx(stats.entropy(shares) / np.log(3))
    assert found["smallest_class_ratio"] == pytest.approx(shares.min())


def test_targets_of_regressions_have_moments() -> None:
    diabetes = load_builtin("diabetes")
    found = meta_features(diabetes)
    assert found["target_skewness"] == pytest.approx(stats.skew(diabetes.y.astype(float)), rel=1e-6)
    assert found["target_kurtosis"] == pytest.approx(stats.kurtosis(diabetes.y.astype(float)), rel=1e-6)
    assert found["classes"] == 0.0


def test_kinds_and_missing_cells_are_counted() -> None:
    X = np.array([[1, 0, np.nan], [2, 1, 5], [3, np.nan, 6], [4, 1, 7]], np.float32)
    columns = (Column("a"), Column("b", "categorical", ("x", "y")), Column("c"))
    found = meta_features(Dataset("t", Task.REGRESSION, "tabular", X, np.arange(4, dtype=np.float32), columns=columns))
    assert (found["rows"], found["features"]) == (4, 3)
    assert found["categorical_ratio"] == pytest.approx(1 / 3)
    assert found["numeric_ratio"] == pytest.approx(2 / 3)
    assert found["missing_ratio"] == pytest.approx(2 / 12)


def test_simple_tasks_are_recognised_by_their_landmarks() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(600, 3)).astype(np.float32)

    def landmarks(y: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[float]:
        columns = tuple(Column(name) for name in "abc")
        dataset = Dataset(
            "t", Task.CLASSIFICATION, "tabular", X, y.astype(np.int64), columns=columns, class_names=("n", "y")
        )
        found = meta_features(dataset)
        return [found[f"landmark_{name}"] for name in ("nearest_neighbour", "stump", "linear")]

    _, stump, linear = landmarks(X[:, 1] > 0.3)
    assert stump > 0.97
    neighbour, stump, linear = landmarks(X.sum(axis=1) > 0)
    assert linear > 0.95 > stump
    neighbour, stump, linear = landmarks(X[:, 0] * X[:, 1] > 0)
    assert neighbour > 0.75 > max(stump, linear)


def test_the_same_data_and_seed_give_the_same_numbers() -> None:
    assert described(load_builtin("digits"), 1) == described(load_builtin("digits"), 1)
    assert described(load_builtin("digits"), 1) != described(load_builtin("digits"), 2)


def test_texts_have_entropies() -> None:
    # Given "abab…", a token alone is one bit, and after the one before it, none.
    ids = (np.arange(2000) % 2).astype(np.int32)
    text = Dataset("t", Task.LANGUAGE_MODELLING, "text", ids, np.zeros(0, np.int64), vocabulary=("a", "b"))
    found = meta_features(text)
    assert found["unigram_entropy"] == pytest.approx(1.0)
    assert found["conditional_entropy"] == pytest.approx(0.0, abs=1e-3)
    assert (found["rows"], found["classes"]) == (2000, 2)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(2, 12), st.integers(1, 4)),
        elements=st.floats(width=32, allow_infinity=False) | st.just(np.float32(np.nan)),
    )
)
@settings(max_examples=80, deadline=None)
def test_any_table_gives_finite_numbers(X: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    columns = tuple(Column(f"x{number}") for number in range(X.shape[1]))
    y = np.arange(len(X), dtype=np.float32) % 3
    dataset = Dataset("t", Task.REGRESSION, "tabular", X, y, columns=columns)
    found = described(dataset)
    assert all(math.isfinite(value) for value in meta_features(dataset).values())
    assert (SAMPLE in found) == (len(X) >= 3)
