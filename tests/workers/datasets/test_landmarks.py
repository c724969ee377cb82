"""The three simple learners, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from foretune.wire.datasets import Task
from workers.datasets.landmarks import RIDGE, landmark_scores, nearest_neighbour, ridge, stump

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(300, 6))
QUERIES = GENERATOR.normal(size=(200, 6))
CLASSES = (X[:, 2] + 0.3 * X[:, 0] > 0.2).astype(int) + (X[:, 2] > 1)
ONE_HOT = np.eye(3)[CLASSES]
NUMBERS = X[:, [1]] ** 3 + X[:, [0]]


def test_the_nearest_neighbour_is_scikit_learns() -> None:
    theirs = KNeighborsClassifier(1).fit(X, CLASSES).predict(QUERIES)
    assert nearest_neighbour(X, ONE_HOT, QUERIES).argmax(axis=1).tolist() == theirs.tolist()
    np.testing.assert_array_equal(
        nearest_neighbour(X, NUMBERS, QUERIES), KNeighborsRegressor(1).fit(X, NUMBERS).predict(QUERIES)
    )


def test_the_stump_is_a_tree_of_depth_one() -> None:
    tree = DecisionTreeClassifier(max_depth=1).fit(X, CLASSES)
    np.testing.assert_allclose(stump(X, ONE_HOT, QUERIES), tree.predict_proba(QUERIES), atol=1e-9)
    regression_tree = DecisionTreeRegressor(max_depth=1).fit(X, NUMBERS)
    np.testing.assert_allclose(stump(X, NUMBERS, QUERIES)[:, 0], regression_tree.predict(QUERIES), atol=1e-9)


def test_a_stump_without_any_split_predicts_the_mean() -> None:
    flat = np.ones((4, 2))
    assert stump(flat, np.array([[1.0], [2.0], [3.0], [6.0]]), flat[:1]).tolist() == [[3.0]]


@pytest.mark.parametrize("width", [6, 400])
def test_ridge_is_scikit_learns_in_both_forms(width: int) -> None:
    wide = GENERATOR.normal(size=(300, width))
    queries = GENERATOR.normal(size=(20, width))
    theirs = Ridge(alpha=RIDGE).fit(wide, ONE_HOT).predict(queries)
    np.testing.assert_allclose(ridge(wide, ONE_HOT, queries), theirs, atol=1e-7)


def test_scores_are_taken_on_rows_not_learned_from() -> None:
    # Given targets of pure noise, then nothing can be learned, however well one remembers.
    noise = GENERATOR.normal(size=500)
    scores = landmark_scores(GENERATOR.normal(size=(500, 3)), noise, Task.REGRESSION)
    assert all(score < 0.1 for score in scores.values())
    exact = landmark_scores(X, X[:, 0] * 2 + 1, Task.REGRESSION)
    assert exact["landmark_linear"] > 0.99
