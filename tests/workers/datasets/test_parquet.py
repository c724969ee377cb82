"""Parquet uploads keep the types that the file declares."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset
from workers.datasets.limits import DatasetLimits
from workers.datasets.parse import parse

ROWS = 12


def read(
    folder: Path, columns: Mapping[str, object], target: str | None = None, limits: DatasetLimits | None = None
) -> Dataset:
    pq.write_table(pa.table(dict(columns)), folder / "upload")
    return parse(folder / "upload", "file.parquet", target=target, limits=limits)


def test_every_kind_of_column_is_read(tmp_path: Path) -> None:
    dataset = read(
        tmp_path,
        {
            "whole": pa.array([None, *range(1, ROWS)], pa.int64()),
            "text": pa.array(["10", "9", None] * 4),
            "flag": pa.array([True, False, None] * 4),
            "word": pa.array(["b", "a", None] * 4).dictionary_encode(),
            "money": pa.array([f"{n}.25" for n in range(ROWS)]).cast(pa.decimal128(10, 2)),
            "day": [datetime.date(1970, 1, 1 + n) for n in range(ROWS)],
            "y": pa.array(["x", "z"] * 6),
        },
    )
    assert dataset.columns == (
        Column("whole"),
        Column("text", "categorical", ("9", "10")),
        Column("flag", "categorical", ("false", "true")),
        Column("word", "categorical", ("a", "b")),
        Column("money"),
        Column("day"),
    )
    np.testing.assert_array_equal(dataset.X[0], np.array([np.nan, 1, 1, 1, 0.25, 0], np.float32))
    np.testing.assert_array_equal(dataset.X[1], np.array([1, 0, 0, 0, 1.25, 1], np.float32))
    np.testing.assert_array_equal(dataset.X[2], np.array([2, np.nan, np.nan, np.nan, 2.25, 2], np.float32))
    assert dataset.class_names == ("x", "z")


def test_texts_that_look_like_numbers_stay_classes(tmp_path: Path) -> None:
    dataset = read(tmp_path, {"x": range(ROWS), "y": ["1", "2"] * 6})
    assert (dataset.task, dataset.class_names) == (Task.CLASSIFICATION, ("1", "2"))


def test_a_float_target_makes_a_regression(tmp_path: Path) -> None:
    dataset = read(tmp_path, {"y": [n / 2 for n in range(ROWS)], "x": [n % 5 for n in range(ROWS)]}, target="y")
    assert dataset.task is Task.REGRESSION
    assert dataset.y.tolist() == [n / 2 for n in range(ROWS)]


def test_the_pandas_index_is_left_out(tmp_path: Path) -> None:
    columns = {"x": range(ROWS), "y": [0, 1] * 6, "__index_level_0__": range(ROWS)}
    dataset = read(tmp_path, columns)
    assert (dataset.feature_names, dataset.target_name) == (("x",), "y")


def test_a_long_text_repeated_in_every_row_does_not_fill_the_memory(tmp_path: Path) -> None:
    # Given 100 kB written once, standing in 10,000 rows: 1 GB if every cell were written out.
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["x" * 100_000]))
    numbers = np.arange(10_000)
    table = pa.table({"bomb": word, "x": numbers % 9, "y": numbers % 2})
    # when the file does not say itself that the column was a dictionary,
    pq.write_table(table, tmp_path / "upload", store_schema=False)
    dataset = parse(tmp_path / "upload", "file.parquet")
    # then it is read in little memory, and dropped as constant.
    assert dataset.feature_names == ("x",)
    assert (pa.default_memory_pool().max_memory() or 0) < 400_000_000


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [[1, 2]] * ROWS, "y": [0, 1] * 6}, r"column 'x' has type list<.*: flatten or drop it"),
        ({"x": [b"a"] * ROWS, "y": [0, 1] * 6}, "column 'x' has type binary"),
        ({"x": range(ROWS), "y": [[1]] * ROWS}, "column 'y' has type list"),
        ({"y": [0, 1] * 6}, "only one column"),
        ({"x": range(ROWS), "y": pa.nulls(ROWS)}, "target 'y' is missing in every row"),
        ({"x": [1], "y": [1]}, "only one data row"),
    ],
)
def test_unreadable_tables_are_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path, columns)


def test_repeated_names_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(range(ROWS))] * 2, names=["x", "x"])
    pq.write_table(table, tmp_path / "upload")
    with pytest.raises(InvalidDataset, match="'x' appears more than once"):
        parse(tmp_path / "upload", "file.parquet")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(ROWS), "y": [0, 1] * 6}), tmp_path / "upload")
    content = (tmp_path / "upload").read_bytes()
    (tmp_path / "upload").write_bytes(content[:-20])
    with pytest.raises(InvalidDataset, match="cannot be read as Parquet"):
        parse(tmp_path / "upload", "file.parquet")
    (tmp_path / "upload").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(InvalidDataset, match="is not a parquet file"):
        parse(tmp_path / "upload", "file.parquet")


def test_limits_are_read_from_the_footer(tmp_path: Path) -> None:
    columns = {"x": range(ROWS), "y": [0, 1] * 6}
    for limits, message in [
        (DatasetLimits(rows=11), "12 rows; at most 11"),
        (DatasetLimits(columns=1), "2 columns; at most 1"),
        (DatasetLimits(cells=23), "24 cells; at most 23"),
    ]:
        with pytest.raises(InvalidDataset, match=message):
            read(tmp_path, columns, limits=limits)
