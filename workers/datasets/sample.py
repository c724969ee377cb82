"""A bounded sample of a data set as a set of rows that an encoder can read, whatever the columns are.

What a row says is put into eight numbers that mean the same in every data set: how near its neighbours are and whether
they agree with it, how well a linear model gets it, how large, smooth and peaked it is, and how usual its label. Of a
text, windows of tokens are described by how surprising they are. The encoder (`metalearner.task_encoder`) maps each
element by one network and averages: a DeepSet (Zaheer et al. 2017, arXiv 1703.06114), as Dataset2Vec has it for pairs
of cells (Jomaa et al. 2021, arXiv 1905.11063).

Axes: N rows of a sample, at most 500; D encoded columns; E elements, the first at most 64 of the rows; K classes.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from foretune.wire.datasets import Task
from metalearner.task_sample import ELEMENTS, NUMBERS
from workers.datasets.dataset import Dataset

ROWS = 500
_NEIGHBOURS = 10
_RIDGE = 1.0
_LEAST_ROWS = 3
_WINDOW = 64
_TEXT_SAMPLE = 200_000
_TINY = 1e-6

Numbers = NDArray[np.float64]


def row_elements(dataset: Dataset, encoded: Numbers, rows: NDArray[np.int64]) -> Numbers:
    """The elements (E, 8) of arrays. `encoded` (N, D): the sampled `rows` (N,), standardised and complete.

    Empty for fewer than three rows.
    """
    rows, X = rows[:ROWS], encoded[:ROWS]
    if len(X) < _LEAST_ROWS:
        return np.zeros((0, NUMBERS))
    classifies = dataset.task is Task.CLASSIFICATION
    y = dataset.y[rows].astype(np.float64)
    targets = (y[:, None] == np.unique(y)[None, :]).astype(np.float64) if classifies else _standard(y)[:, None]
    count = min(ELEMENTS, len(X))
    distances = _distances(X)
    crowding, margin, agreement = _neighbourhood(distances, targets, classifies)
    squares = (X**2).mean(1)
    found = np.stack(
        [
            crowding,
            margin,
            agreement,
            _linear(X, targets, classifies),
            0.5 * np.log(squares + _TINY),
            _roughness(dataset, rows),
            np.log(targets @ targets.mean(0) * targets.shape[1]) if classifies else targets[:, 0],
            np.log(((X**4).mean(1) + _TINY) / (squares**2 + _TINY)),
        ],
        axis=1,
    )
    return np.asarray(found[:count])


def window_elements(dataset: Dataset) -> Numbers:
    """The elements (E, 8) of a text: evenly spread windows of 64 tokens. Empty for a text shorter than one."""
    ids = dataset.X[:_TEXT_SAMPLE].astype(np.int64)
    if len(ids) < 2 * _WINDOW:
        return np.zeros((0, NUMBERS))
    size = len(dataset.vocabulary)
    single = np.bincount(ids, minlength=size)
    alone = -np.log(single[ids] / len(ids))
    _, which, pairs = np.unique(ids[:-1] * size + ids[1:], return_inverse=True, return_counts=True)
    given = np.concatenate([alone[:1], -np.log(pairs[which] / single[ids[:-1]])])
    _, which, triples = np.unique(which[:-1] * size + ids[2:], return_inverse=True, return_counts=True)
    again = np.concatenate([[0.0, 0.0], (triples[which] > 1).astype(np.float64)])
    starts = np.linspace(0, len(ids) - _WINDOW, min(ELEMENTS, len(ids) // _WINDOW)).astype(np.int64)
    windows = starts[:, None] + np.arange(_WINDOW)  # (E, 64)
    tokens = np.sort(ids[windows], axis=1)
    first = np.concatenate([np.ones((len(windows), 1), dtype=bool), tokens[:, 1:] != tokens[:, :-1]], axis=1)
    return np.stack(
        [
            alone[windows].mean(1) - 2.0,
            given[windows].mean(1) - 1.0,
            alone[windows].std(1),
            given[windows].std(1),
            np.log(first.mean(1)) + 1.0,
            again[windows].mean(1),
            (ids[windows][:, 1:] == ids[windows][:, :-1]).mean(1),
            np.full(len(windows), np.log10(size) - 2.0),
        ],
        axis=1,
    )


def _distances(X: Numbers) -> Numbers:  # (N, D) -> (N, N)
    """Euclidean distances, infinite from a row to itself."""
    squares = (X**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * X @ X.T, 0.0))
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)


def _neighbourhood(distances: Numbers, targets: Numbers, classifies: bool) -> tuple[Numbers, Numbers, Numbers]:
    """Of each row (N,): the log distance to its nearest relative to the usual distance, how much nearer a row of its
    kind is than one of another, and how much its nearest agree with it, from -1 to 1.
    """
    usual = float(np.median(distances[np.isfinite(distances)])) + _TINY
    nearest = distances.min(1)
    around = np.argsort(distances, axis=1, kind="stable")[:, : min(_NEIGHBOURS, len(distances) - 1)]  # (N, 10)
    if classifies:
        same = targets @ targets.T > 0.5
        kin = np.where(same, distances, np.inf).min(1)  # infinite for the only row of its class
        strange = np.where(same, np.inf, distances).min(1)  # infinite where there is one class only
        margin = np.log((np.minimum(strange, 10 * usual) + _TINY) / (np.minimum(kin, 10 * usual) + _TINY))
        share = np.take_along_axis(same, around, axis=1).mean(1)
        agreement = 2.0 * share - 1.0
    else:
        y = targets[:, 0]
        gap = np.abs(y - y[around[:, 0]])
        margin = -np.log((gap + 0.05) / (np.abs(y[:, None] - y[None, :]).mean() + 0.05))
        agreement = np.clip(1.0 - ((y[:, None] - y[around]) ** 2).mean(1), -1.0, 1.0)
    return np.log((nearest + _TINY) / usual), margin, agreement


def _linear(X: Numbers, targets: Numbers, classifies: bool) -> Numbers:
    """How well ridge regression that leaves a row out gets it (N,): the margin of its class, or minus its error."""
    centred = X - X.mean(0)
    kernel = centred @ centred.T
    hat = kernel @ np.linalg.inv(kernel + _RIDGE * np.eye(len(X))) + 1.0 / len(X)
    left_out = (targets - hat @ targets) / np.maximum(1.0 - np.diag(hat), _TINY)[:, None]
    predicted = targets - left_out
    if not classifies:
        return np.asarray(-np.abs(left_out[:, 0]))
    own = (predicted * targets).sum(1)
    others = np.where(targets > 0.5, -np.inf, predicted).max(1)
    return np.asarray(np.where(np.isfinite(others), own - others, 1.0))


def _roughness(dataset: Dataset, rows: NDArray[np.int64]) -> Numbers:
    """How much neighbouring pixels or steps differ relative to any two (N,); 0 for tables, which have no neighbours."""
    if dataset.modality not in ("image", "sequence"):
        return np.zeros(len(rows))
    values = np.nan_to_num(cast("NDArray[np.float32]", dataset.X[rows]).astype(np.float64))
    axis = -1 if dataset.modality == "image" else 1
    if values.shape[axis] < 2:
        return np.zeros(len(rows))
    steps = np.abs(np.diff(values, axis=axis)).reshape(len(rows), -1).mean(1)
    spread = values.reshape(len(rows), -1).std(1)
    return np.asarray(np.log((steps + _TINY) / (spread + _TINY)))


def _standard(y: Numbers) -> Numbers:
    scale = float(y.std())
    return (y - y.mean()) / scale if scale > 0.0 else np.zeros_like(y)
