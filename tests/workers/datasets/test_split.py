"""The split: a partition, stratified, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset
from workers.datasets.split import random_order, split


def classification(labels: list[int]) -> Dataset:
    _, y = np.unique(labels, return_inverse=True)
    names = tuple(f"class {number}" for number in range(int(y.max()) + 1))
    X = np.arange(len(y), dtype=np.float32)[:, None]
    return Dataset("t", Task.CLASSIFICATION, "tabular", X, y, columns=(Column("x"),), class_names=names)


def regression(values: list[float]) -> Dataset:
    X = np.arange(len(values), dtype=np.float32)[:, None]
    return Dataset("t", Task.REGRESSION, "tabular", X, np.array(values, np.float32), columns=(Column("x"),))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=120), st.integers(0, 2**31), st.floats(0.05, 0.5))
@settings(max_examples=150, deadline=None)
def test_classes_are_shared_out(labels: list[int], seed: int, fraction: float) -> None:
    # Given any classes, when they are split,
    dataset = classification(labels)
    parts = split(dataset, seed, fraction)
    # then every row is on exactly one side and neither side is empty,
    together = np.concatenate([parts.train, parts.validation])
    assert sorted(together.tolist()) == list(range(len(labels)))
    assert len(parts.train) > 0
    assert len(parts.validation) > 0
    # a class of two or more is on both sides, and none is off its share by more than one row or its minimum.
    counts = np.bincount(dataset.y)
    taken = np.bincount(dataset.y[parts.validation], minlength=len(counts))
    if counts.max() > 1:
        assert (taken[counts == 1] == 0).all()
        assert (taken[counts > 1] >= 1).all()
        assert (taken < counts)[counts > 1].all()
        wanted = counts * max(1, round(len(labels) * fraction)) / len(labels)
        assert (taken <= np.maximum(np.floor(wanted) + 1, 1)).all()
        assert (taken >= np.minimum(np.floor(wanted), counts - 1)).all()


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=200),
    st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_regression_is_a_partition_of_the_wanted_size(values: list[float], seed: int) -> None:
    parts = split(regression(values), seed)
    assert sorted([*parts.train.tolist(), *parts.validation.tolist()]) == list(range(len(values)))
    assert len(parts.validation) == max(1, round(len(values) * 0.2))


def test_regression_covers_every_quantile() -> None:
    # Given 1,000 targets in any order, when they are split,
    values = np.random.default_rng(0).permutation(1000).astype(float)
    validation = np.sort(values[split(regression(values.tolist()), seed=3).validation])
    # then each tenth of the target gives its fifth: exactly 20 rows.
    assert np.histogram(validation, bins=10, range=(0, 1000))[0].tolist() == [20] * 10


def test_the_split_is_the_same_for_ever() -> None:
    # These numbers were written down once; a change would silently change every result that users compare.
    parts = split(classification([0, 1, 2, 0, 1, 2, 0, 1, 2, 0] * 2), seed=7)
    assert parts.validation.tolist() == [6, 7, 8, 16]
    assert random_order("stream", 8).tolist() == [5, 4, 2, 1, 3, 0, 6, 7]


def test_another_seed_or_other_data_split_otherwise() -> None:
    labels = [0, 1] * 100
    first = split(classification(labels), seed=0).validation.tolist()
    assert split(classification(labels), seed=0).validation.tolist() == first
    assert split(classification(labels), seed=1).validation.tolist() != first
    assert split(classification([1, 0, *labels[2:]]), seed=0).validation.tolist() != first


def test_the_end_of_a_text_validates() -> None:
    ids = np.arange(50, dtype=np.int32) % 5
    text = Dataset("t", Task.LANGUAGE_MODELLING, "text", ids, np.zeros(0, np.int64), vocabulary=tuple("abcde"))
    parts = split(text, seed=5)
    assert parts.train.tolist() == list(range(40))
    assert parts.validation.tolist() == list(range(40, 50))


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(InvalidDataset, match="too few to split"):
        split(regression([1.0]), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_the_fraction_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(regression([1.0, 2.0]), 0, fraction)


@given(st.text(max_size=5), st.integers(0, 300))
def test_an_order_is_a_permutation(stream: str, length: int) -> None:
    assert sorted(random_order(stream, length).tolist()) == list(range(length))
