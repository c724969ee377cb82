"""How well three very simple learners do: the nearest neighbour, one split, and a linear model.

Scores on the second half of a sample of at most 500 rows, learned on the first: accuracy for classes, R² cut to
[-1, 1] for numbers. Together they say whether a task is local, one-dimensional or linear.

Axes: N rows, D encoded columns, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretune.wire.datasets import Task

ROWS = 500
RIDGE = 1.0
_STUMP_CELLS = 4_000_000

Numbers = NDArray[np.float64]


def landmark_scores(X: Numbers, y: NDArray[np.generic], task: Task) -> dict[str, float]:
    """Scores of the three learners on the rows given, in their order (which should be random).

    X (N, D) is standardised and complete; y (N,) holds class ids or numbers.
    """
    X, y = X[:ROWS], y[:ROWS]
    half = (len(X) + 1) // 2
    targets = _target_matrix(y, task)
    train, test = slice(0, half), slice(half, len(X))

    def score(predicted: Numbers) -> float:
        return _accuracy(predicted, y[test]) if task is Task.CLASSIFICATION else _r2(predicted, targets[test])

    return {
        "landmark_nearest_neighbour": score(nearest_neighbour(X[train], targets[train], X[test])),
        "landmark_stump": score(stump(X[train], targets[train], X[test])),
        "landmark_linear": score(ridge(X[train], targets[train], X[test])),
    }


def nearest_neighbour(X: Numbers, targets: Numbers, queries: Numbers) -> Numbers:
    """The targets (M, K) of the nearest row of X to each query (M, D), by Euclidean distance."""
    # |q - x|² without the |q|² that all distances of a query share.
    distances = (X**2).sum(axis=1) - 2.0 * queries @ X.T
    return np.asarray(targets[distances.argmin(axis=1)])


def stump(X: Numbers, targets: Numbers, queries: Numbers) -> Numbers:
    """Mean targets (M, K) on the query's side of the one split that lowers the squared error most.

    For one-hot targets the squared error is the Gini impurity, as in CART.
    """
    rows, width = X.shape
    width = min(width, max(1, _STUMP_CELLS // (rows * targets.shape[1])))
    order = np.argsort(X[:, :width], axis=0, kind="stable")  # (N, D)
    values = np.take_along_axis(X[:, :width], order, axis=0)
    below = np.cumsum(targets[order], axis=0)  # (N, D, K): sums over the rows up to and with each
    total = targets.sum(axis=0)
    count = np.arange(1, rows)[:, None]
    gain = (below[:-1] ** 2).sum(axis=2) / count + ((total - below[:-1]) ** 2).sum(axis=2) / (rows - count)
    gain[values[1:] <= values[:-1]] = -np.inf  # equal values cannot be parted
    cut, feature = np.unravel_index(int(gain.argmax()), gain.shape) if gain.size else (0, 0)
    if gain.size == 0 or np.isneginf(gain[cut, feature]):
        return np.tile(total / rows, (len(queries), 1))
    threshold = (values[cut, feature] + values[cut + 1, feature]) / 2.0
    left = below[cut, feature] / (cut + 1)
    right = (total - below[cut, feature]) / (rows - cut - 1)
    return np.asarray(np.where(queries[:, feature, None] <= threshold, left, right))


def ridge(X: Numbers, targets: Numbers, queries: Numbers) -> Numbers:
    """Predictions (M, K) of least squares with penalty `RIDGE` and a free intercept."""
    middle, level = X.mean(axis=0), targets.mean(axis=0)
    centred = X - middle
    # The dual form costs N³ instead of D³: whichever is smaller.
    if X.shape[1] > len(X):
        kernel = centred @ centred.T + RIDGE * np.eye(len(X))
        weights = centred.T @ np.linalg.solve(kernel, targets - level)
    else:
        gram = centred.T @ centred + RIDGE * np.eye(X.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (targets - level))
    return np.asarray((queries - middle) @ weights + level)


def _target_matrix(y: NDArray[np.generic], task: Task) -> Numbers:
    """One-hot classes (N, K) with the classes that occur moved to the front, or numbers (N, 1)."""
    if task is Task.REGRESSION:
        return y.astype(np.float64)[:, None]
    one_hot = np.zeros((len(y), int(y.max()) + 1))
    one_hot[np.arange(len(y)), y.astype(np.int64)] = 1.0
    return one_hot


def _accuracy(predicted: Numbers, y: NDArray[np.generic]) -> float:
    return float((predicted.argmax(axis=1) == y).mean())


def _r2(predicted: Numbers, targets: Numbers) -> float:
    residual = float(((targets - predicted) ** 2).sum())
    total = float(((targets - targets.mean()) ** 2).sum())
    return float(np.clip(1.0 - residual / total, -1.0, 1.0)) if total > 0.0 else 0.0
