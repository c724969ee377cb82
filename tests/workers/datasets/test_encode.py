"""Encoding, against scikit-learn's answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from workers.datasets import encode
from workers.datasets.dataset import Column
from workers.datasets.encode import fit_standardization, fit_table

NAN = np.float32(np.nan)


@given(arrays.arrays(np.float32, st.tuples(st.integers(2, 30), st.integers(1, 5)), elements=st.integers(-99, 99)))
@settings(max_examples=60, deadline=None)
def test_standardisation_is_scikit_learns(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    theirs = StandardScaler().fit(values.astype(np.float64))
    ours = fit_standardization(values, feature_axis=1)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-9)
    np.testing.assert_allclose(ours.scale, theirs.scale_, rtol=1e-6)
    np.testing.assert_allclose(ours.apply(values), theirs.transform(values.astype(np.float64)), atol=1e-5)


def test_missing_values_neither_count_nor_show() -> None:
    values = np.array([[1, NAN], [3, NAN], [NAN, NAN]], np.float32)
    ours = fit_standardization(values, feature_axis=1)
    assert ours.mean.tolist() == [2.0, 0.0]
    assert ours.scale.tolist() == [1.0, 1.0]
    assert ours.apply(values).tolist() == [[-1, 0], [1, 0], [0, 0]]


def test_channels_and_steps_share_their_statistics() -> None:
    images = np.random.default_rng(0).normal(3, 2, (20, 3, 8, 9)).astype(np.float32)
    z = fit_standardization(images, feature_axis=1).apply(images)
    np.testing.assert_allclose(z.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(101, 7)).astype(np.float32)
    whole = fit_standardization(values, 1)
    expected = whole.apply(values)
    monkeypatch.setattr(encode, "_CHUNK_CELLS", 50)
    parts = fit_standardization(values, 1)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.apply(values), expected, rtol=1e-6)


def test_a_column_that_is_constant_but_for_rounding_stays_finite() -> None:
    values = np.full((1000, 1), 0.1, np.float32)
    assert np.abs(fit_standardization(values, 1).apply(values)).max() < 1e-5


def test_categories_are_one_hot_as_in_scikit_learn() -> None:
    codes = np.random.default_rng(0).integers(0, 5, (40, 2)).astype(np.float32)
    columns = (Column("a", "categorical", tuple("vwxyz")), Column("b", "categorical", tuple("vwxyz")))
    theirs = OneHotEncoder(sparse_output=False).fit(codes)
    np.testing.assert_array_equal(fit_table(codes, columns).apply(codes), theirs.transform(codes))


def test_unseen_and_missing_categories_are_all_zero() -> None:
    columns = (Column("a", "categorical", ("v", "w", "x")),)
    table = fit_table(np.array([[0], [2], [NAN]], np.float32), columns)
    assert table.names == ("a = v", "a = x", "a is missing")
    encoded = table.apply(np.array([[0], [1], [2], [NAN]], np.float32))
    assert encoded.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_rare_categories_share_a_column() -> None:
    # Given 100 categories in training, the first 64 twice; category 100 is never seen.
    codes = np.concatenate([np.arange(100), np.arange(64)]).astype(np.float32)[:, None]
    columns = (Column("a", "categorical", tuple(f"c{number:03}" for number in range(101))),)
    table = fit_table(codes, columns)
    # Then 64 have columns of their own, the other 36 share one, and the unseen one has none.
    assert len(table.names) == 65
    encoded = table.apply(np.arange(101, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(encoded[:64, :64], np.eye(64))
    assert encoded[64:100, 64].tolist() == [1] * 36
    assert encoded[:, 64].sum() == 36
    assert not encoded[100].any()


def test_a_wide_table_gets_fewer_columns_a_category(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, 60, (200, 3)).astype(np.float32)
    columns = tuple(Column(name, "categorical", tuple(f"c{number:02}" for number in range(60))) for name in "abc")
    monkeypatch.setattr(encode, "_ENCODED_CELLS", 200 * 60)
    table = fit_table(codes, columns)
    assert len(table.names) <= 60
    assert (table.apply(codes).sum(axis=1) == 3).all()


def test_indicators_follow_what_was_missing_in_training() -> None:
    columns = (Column("a"), Column("b"))
    table = fit_table(np.array([[1, 5], [NAN, 7]], np.float32), columns)
    assert table.names == ("a", "b", "a is missing")
    # A value missing only later is the mean, without an indicator.
    assert table.apply(np.array([[NAN, NAN]], np.float32)).tolist() == [[0, 0, 1]]


def test_one_wrong_cell_is_cut() -> None:
    values = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    table = fit_table(values, (Column("a"),))
    assert table.apply(np.array([[1e30], [-1e30]], np.float32)).tolist() == [[10.0], [-10.0]]


def test_a_table_of_categories_alone_has_no_numbers() -> None:
    table = fit_table(np.array([[0], [1]], np.float32), (Column("a", "categorical", ("x", "y")),))
    assert table.apply(np.array([[1], [0]], np.float32)).tolist() == [[0, 1], [1, 0]]
