"""From an Arrow table to a tabular data set: which column is the target, which are features, which are dropped."""

from __future__ import annotations

import difflib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.columns import (
    CategoryColumn,
    NumberColumn,
    distinct_count,
    read_text_column,
    read_typed_column,
)
from workers.datasets.dataset import Column, Dataset
from workers.datasets.targets import Target, read_target

MAX_CATEGORIES = 1000
"""A text column with more distinct values is dropped as free text or an id."""

_ROW_NUMBER_NAMES = {"", "index", "idx", "row", "row_id", "rowid", "rownames", "unnamed: 0", "__index_level_0__"}
_LISTED_COLUMNS = 10


def dataset_from_table(
    table: pa.Table,
    *,
    name: str,
    target: str | None,
    task: Task | None,
    texts: bool,
    decimal_comma: bool = False,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Types every column of `table` and splits off the target; the last column if `target` is None.

    `texts`: the cells are texts whose types are to be found (CSV), not typed values (Parquet).
    Raises InvalidDataset when the target or all features are unusable.
    """
    names = table.column_names
    if len(names) < 2:
        width = f"only one column ({names[0]!r})" if names else "no columns"
        raise InvalidDataset(f"the table has {width}; at least one feature and a target are needed")
    remarks = list(notes)
    if target is None:
        target = names[-1]
        remarks.append(f"target was not given: the last column, {target!r}, is used")
    found = _find_target(names, target)
    answer = _read_target(table.column(found), target, task, texts, decimal_comma)
    remarks += answer.notes
    columns, arrays = list[Column](), list[NDArray[np.float32]]()
    for position, feature_name in enumerate(names):
        if position == found:
            continue
        typed = _typed(table.column(position), feature_name, texts, decimal_comma)
        remarks += [f"column {feature_name!r}: {note}" for note in typed.notes]
        reason = _reason_to_drop(feature_name, typed)
        if reason is not None:
            remarks.append(f"column {feature_name!r} was dropped: {reason}")
            continue
        column, cells = _as_feature(feature_name, typed)
        columns.append(column)
        arrays.append(cells)
    if not columns:
        raise InvalidDataset("no usable feature column is left: " + "; ".join(remarks))
    return Dataset(
        name=name,
        task=answer.task,
        modality="tabular",
        X=np.stack(arrays, axis=1),
        y=answer.y,
        columns=tuple(columns),
        target_name=target,
        class_names=answer.class_names,
        warnings=tuple(remarks),
    )


def _find_target(names: list[str], target: str) -> int:
    if target in names:
        return names.index(target)
    folded = {name.casefold(): name for name in names}
    near = [folded[match] for match in difflib.get_close_matches(target.casefold(), folded, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = ", ".join(map(repr, names[:_LISTED_COLUMNS])) + (", …" if len(names) > _LISTED_COLUMNS else "")
    raise InvalidDataset(f"target column {target!r} is not in the file; {hint}its columns are {listed}")


def _read_target(values: pa.ChunkedArray, name: str, task: Task | None, texts: bool, decimal_comma: bool) -> Target:
    if texts:
        column = read_text_column(values, decimal_comma=decimal_comma, forgive_odd_token=False)
    else:
        column = _typed(values, name, texts, decimal_comma)
    # Typed whole numbers are class ids only by the rule for few values: a table has no way to say more.
    return read_target(column, name, task)


def _typed(values: pa.ChunkedArray, name: str, texts: bool, decimal_comma: bool) -> NumberColumn | CategoryColumn:
    if texts:
        return read_text_column(values, decimal_comma=decimal_comma)
    try:
        return read_typed_column(values)
    except InvalidDataset as error:
        raise InvalidDataset(f"column {name!r} {error.message}") from error


def _reason_to_drop(name: str, typed: NumberColumn | CategoryColumn) -> str | None:
    distinct = distinct_count(typed)
    if distinct == 0:
        return "every value is missing"
    if isinstance(typed, CategoryColumn):
        present = int((typed.codes >= 0).sum())
        if distinct == 1 and present == len(typed.codes):
            return f"it is constant ({typed.categories[0]!r})"
        if distinct > MAX_CATEGORIES or (distinct > 20 and distinct > present / 2):
            return f"its {distinct:,} distinct texts in {present:,} rows look like an id or free text"
        return None
    present = int((~np.isnan(typed.values)).sum())
    if distinct == 1 and present == len(typed.values):
        return f"it is constant ({float(typed.values[0]):g})"
    if not typed.is_date and distinct == present == len(typed.values) and _numbers_rows(name, typed.values):
        return "it numbers the rows"
    return None


def _numbers_rows(name: str, values: NDArray[np.float64]) -> bool:
    """Whether distinct `values` are a row number by name and content; such a column leaks the order of the file."""
    folded = name.strip().casefold()
    if folded in _ROW_NUMBER_NAMES:
        return bool((np.diff(values) == 1).all())
    return (folded == "id" or folded.endswith("_id")) and bool((values == np.rint(values)).all())


def _as_feature(name: str, typed: NumberColumn | CategoryColumn) -> tuple[Column, NDArray[np.float32]]:
    if isinstance(typed, CategoryColumn):
        cells = np.where(typed.codes < 0, np.nan, typed.codes).astype(np.float32)
        return Column(name, "categorical", typed.categories), cells
    values = typed.values
    present = values[~np.isnan(values)]
    lowest, spread = float(present.min()), float(present.max() - present.min())
    # A column far from zero (a Unix time, a year with fractions) would lose its digits in float32.
    if float(np.abs(present.astype(np.float32) - present).max()) > 1e-5 * spread:
        return Column(name, offset=lowest), (values - lowest).astype(np.float32)
    return Column(name), values.astype(np.float32)
