"""Cheap numbers that describe a data set to the meta-learner.

Sizes are counted on all rows; shapes of distributions and landmark scores on a seeded sample of at most 2,000 and
500 rows. Every value is a finite float, but for one word that holds a sample (`workers.datasets.sample`), so the result
is JSON. The same keys come back for every table, image or sequence of at least three rows; a text has keys of its own.

Axes: N rows, F features, K classes.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from foretune.wire.datasets import Task
from metalearner import task_sample
from workers.datasets.dataset import Column, Dataset
from workers.datasets.encode import Floats, fit_table
from workers.datasets.landmarks import landmark_scores
from workers.datasets.sample import row_elements, window_elements
from workers.datasets.split import random_order
from workers.datasets.views import flatten

SAMPLE_ROWS = 2000
SAMPLE_COLUMNS = 200
_PCA_SHARE = 0.95
_TEXT_SAMPLE = 1_000_000

Numbers = NDArray[np.float64]


def meta_features(dataset: Dataset, seed: int = 0) -> dict[str, float | str]:
    """What describes `dataset`; equal for equal data and seed. Takes well under a second."""
    text = dataset.modality == "text"
    numbers, elements = _text_features(dataset) if text else _array_features(dataset, seed)
    # What overflowed says nothing, and JSON has no word for it.
    found: dict[str, float | str] = {n: float(value) if np.isfinite(value) else 0.0 for n, value in numbers.items()}
    return found | ({task_sample.FEATURE: task_sample.encode(elements)} if len(elements) else {})


def _array_features(dataset: Dataset, seed: int) -> tuple[dict[str, float], Numbers]:
    """Numbers by name, and the elements (E, 8) of a sample."""
    X = flatten(cast(Floats, dataset.X))
    columns = dataset.columns or tuple(Column(f"x{position}") for position in range(X.shape[1]))
    kept = np.sort(random_order(f"meta-columns/{dataset.content_hash}/{seed}", X.shape[1])[:SAMPLE_COLUMNS])
    rows = random_order(f"meta-rows/{dataset.content_hash}/{seed}", len(X))[:SAMPLE_ROWS]
    sample = X[np.ix_(rows, kept)]
    columns = tuple(columns[position] for position in kept)
    categorical = sum(column.kind == "categorical" for column in dataset.columns)
    found: dict[str, float] = {
        "rows": len(X),
        "features": X.shape[1],
        "rows_per_feature": len(X) / X.shape[1],
        "numeric_ratio": 1.0 - categorical / X.shape[1],
        "categorical_ratio": categorical / X.shape[1],
        "missing_ratio": float(np.isnan(X).sum()) / X.size,
    }
    numbers = sample[:, [column.kind == "numeric" for column in columns]].astype(np.float64)
    encoded = fit_table(sample, columns).apply(sample).astype(np.float64)
    found |= _target_features(dataset) | _moments(numbers) | _correlation(encoded)
    found |= landmark_scores(encoded, dataset.y[rows], dataset.task)
    return found, row_elements(dataset, encoded, rows)


def _target_features(dataset: Dataset) -> dict[str, float]:
    """Class counts, or the moments of the standardised target. Entropy is normalised: 1 for equal classes."""
    if dataset.task is Task.REGRESSION:
        y = _standardised(dataset.y.astype(np.float64)[:, None])[:, 0]
        return {
            "classes": 0.0,
            "class_entropy": 0.0,
            "smallest_class_ratio": 0.0,
            "target_skewness": float((y**3).mean()),
            "target_kurtosis": float((y**4).mean()) - 3.0,
        }
    shares = np.bincount(dataset.y, minlength=len(dataset.class_names)) / len(dataset.y)
    return {
        "classes": float(len(shares)),
        "class_entropy": _entropy(shares) / max(np.log(len(shares)), 1e-12),
        "smallest_class_ratio": float(shares.min()),
        "target_skewness": 0.0,
        "target_kurtosis": 0.0,
    }


def _moments(numbers: Numbers) -> dict[str, float]:  # (N, F) with NaN
    """Quartiles over the numeric columns of each column's skewness and excess kurtosis."""
    names = [f"{what}_{q}" for what in ("skewness", "kurtosis") for q in ("q25", "median", "q75")]
    if numbers.shape[1] == 0:
        return dict.fromkeys(names, 0.0)
    z = _standardised(numbers)
    count = np.maximum((~np.isnan(z)).sum(axis=0), 1)
    skewness = np.nansum(z**3, axis=0) / count
    kurtosis = np.nansum(z**4, axis=0) / count - 3.0
    quartiles = [*np.quantile(skewness, (0.25, 0.5, 0.75)), *np.quantile(kurtosis, (0.25, 0.5, 0.75))]
    return dict(zip(names, map(float, quartiles), strict=True))


def _correlation(encoded: Numbers) -> dict[str, float]:  # (N, D) without NaN
    """Mean absolute correlation of column pairs; share of principal components that hold 95 % of the variance."""
    varying = encoded[:, encoded.std(axis=0) > 0.0]
    width = varying.shape[1]
    if width < 2:
        return {"mean_absolute_correlation": 0.0, "pca_95_ratio": 1.0}
    z = _standardised(varying)
    correlation = z.T @ z / len(z)
    pairs = np.abs(correlation).sum() - np.abs(np.diag(correlation)).sum()
    variances = np.maximum(np.linalg.eigvalsh(correlation)[::-1], 0.0)
    # A hair below 95 %, so that rounding in the last digit does not add a component.
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), _PCA_SHARE - 1e-9)) + 1
    return {"mean_absolute_correlation": float(pairs / (width * (width - 1))), "pca_95_ratio": needed / width}


def _standardised(values: Numbers) -> Numbers:
    """Columns with mean 0 and standard deviation 1, NaN left alone; a constant or empty column becomes zeros."""
    count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    centred = values - np.nansum(values, axis=0) / count
    scale = np.sqrt(np.nansum(centred**2, axis=0) / count)
    return np.asarray(centred / np.where(scale > 1e-12, scale, 1.0))


def _text_features(dataset: Dataset) -> tuple[dict[str, float], Numbers]:
    """Length, vocabulary, and the entropy of a token in bits, alone and given the one before it; and the sample."""
    ids = dataset.X[:_TEXT_SAMPLE].astype(np.int64)
    size = len(dataset.vocabulary)
    single = np.bincount(ids, minlength=size) / len(ids)
    _, pairs = np.unique(ids[:-1] * size + ids[1:], return_counts=True)
    unigram = _entropy(single) / np.log(2.0)
    bigram = _entropy(pairs / pairs.sum()) / np.log(2.0)
    first = np.bincount(ids[:-1], minlength=size) / (len(ids) - 1)
    found = {
        "rows": float(dataset.rows),
        "classes": float(size),
        "unigram_entropy": unigram,
        "bigram_entropy": bigram,
        "conditional_entropy": bigram - _entropy(first) / np.log(2.0),
        "bytes_as_tokens": float(dataset.tokens == "bytes"),
    }
    return found, window_elements(dataset)


def _entropy(shares: Numbers) -> float:
    """In nats."""
    present = shares[shares > 0.0]
    return float(-(present * np.log(present)).sum())
