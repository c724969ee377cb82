"""The target: which task it makes, and what is wrong with it.

Guessing the task, where the client left it open:
texts and booleans make a classification; numbers make a regression, unless they are whole and take at most 20 values
(and at most half as many as there are rows). An NPZ whose y has an integer type and holds exactly the ids
0 … K - 1, five rows or more each on average, is a classification for K up to 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.columns import CategoryColumn, NumberColumn, distinct_count, missing_rows
from workers.datasets.dataset import Targets
from workers.datasets.limits import MAX_CLASSES

_FEW_VALUES = 20
_ROWS_PER_ID = 5
_NAMED = 5
_EXACT = 2.0**53
"""Up to here a float64 tells whole numbers apart."""


@dataclass(frozen=True, eq=False)
class Target:
    """`y` (N,) as `Dataset` wants it; `class_names` by class id, empty for regression."""

    task: Task
    y: Targets
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_target(
    column: NumberColumn | CategoryColumn, name: str, task: Task | None, *, class_ids: bool = False
) -> Target:
    """Checks and encodes the target column called `name`; `task` None means guess.

    `class_ids` says that the file declared an integer type, so that whole numbers 0 … K - 1 are class ids.
    Raises InvalidDataset naming the target and the first rows that are wrong (rows count from 1).
    """
    if task is Task.LANGUAGE_MODELLING:
        raise InvalidDataset("task language-modelling needs a text file; this file is a table with a target column")
    _refuse_missing(column, name)
    if distinct_count(column) == 1:
        if isinstance(column, NumberColumn) and abs(float(column.values[0])) >= _EXACT:
            raise InvalidDataset(
                f"target {name!r} has one value, {_first_value(column)}, as numbers are read here: whole ones beyond "
                "2^53 are not told apart; subtract a constant"
            )
        raise InvalidDataset(f"target {name!r} is constant: every row has {_first_value(column)}")
    if isinstance(column, NumberColumn) and column.is_date:
        raise InvalidDataset(f"target {name!r} holds dates; it must hold classes or numbers")
    chosen = task or _guess(column, class_ids)
    guessed = () if task else (f"task was not given: target {name!r} makes it a {chosen.value}",)
    if chosen is Task.REGRESSION:
        return _regression(column, name, guessed)
    return _classification(column, name, guessed)


def _guess(column: NumberColumn | CategoryColumn, class_ids: bool) -> Task:
    if isinstance(column, CategoryColumn):
        return Task.CLASSIFICATION
    values = column.values
    if not np.array_equal(values, np.rint(values)):
        return Task.REGRESSION
    distinct = np.unique(values)
    if len(distinct) <= min(_FEW_VALUES, max(2, len(values) // 2)):
        return Task.CLASSIFICATION
    ids = (
        class_ids
        and len(distinct) <= min(MAX_CLASSES, len(values) // _ROWS_PER_ID)
        and np.array_equal(distinct, np.arange(len(distinct)))
    )
    return Task.CLASSIFICATION if ids else Task.REGRESSION


def _regression(column: NumberColumn | CategoryColumn, name: str, notes: tuple[str, ...]) -> Target:
    if isinstance(column, CategoryColumn):
        wrong = next(row for row, code in enumerate(column.codes) if not _is_number(column.categories[code]))
        raise InvalidDataset(
            f"target {name!r} must hold numbers for regression; row {wrong + 1} has "
            f"{column.categories[column.codes[wrong]]!r}"
        )
    y = column.values.astype(np.float32)
    spread = float(column.values.max() - column.values.min())
    if float(np.abs(y - column.values).max()) > 1e-5 * spread:
        notes = (*notes, f"target {name!r} was rounded to single precision; subtract a constant to keep its digits")
    if y.min() == y.max():
        raise InvalidDataset(
            f"target {name!r} is constant in single precision (all about {float(y[0]):g}); subtract a constant"
        )
    return Target(Task.REGRESSION, y, (), notes)


def _classification(column: NumberColumn | CategoryColumn, name: str, notes: tuple[str, ...]) -> Target:
    if isinstance(column, NumberColumn):
        distinct, codes = np.unique(column.values, return_inverse=True)
        class_names = tuple(_number_label(value) for value in distinct.tolist())
    else:
        codes, class_names = column.codes, column.categories
    if len(class_names) > MAX_CLASSES:
        advice = " (task regression)" if isinstance(column, NumberColumn) else ""
        raise InvalidDataset(
            f"target {name!r} has {len(class_names):,} classes; at most {MAX_CLASSES:,} are allowed: "
            f"it looks like an id or a regression target{advice}"
        )
    counts = np.bincount(codes, minlength=len(class_names))
    single = [class_names[number] for number in np.flatnonzero(counts < 2)]
    if single:
        listed = ", ".join(repr(label) for label in single[:_NAMED])
        more = f" and {len(single) - _NAMED} more" if len(single) > _NAMED else ""
        raise InvalidDataset(
            f"target {name!r}: class {listed}{more} has only one row; each class needs at least 2, "
            "one to train and one to validate"
        )
    return Target(Task.CLASSIFICATION, codes.astype(np.int64), class_names, notes)


def _refuse_missing(column: NumberColumn | CategoryColumn, name: str) -> None:
    gone = missing_rows(column)
    if gone.size == 0:
        return
    if gone.size == _length(column):
        raise InvalidDataset(f"target {name!r} is missing in every row")
    listed = ", ".join(str(row + 1) for row in gone[:_NAMED].tolist())
    more = ", …" if gone.size > _NAMED else ""
    raise InvalidDataset(
        f"target {name!r} is missing (or not finite) in {gone.size:,} row(s): {listed}{more} "
        "(counted from 1 below the header); remove those rows"
    )


def _length(column: NumberColumn | CategoryColumn) -> int:
    return len(column.values) if isinstance(column, NumberColumn) else len(column.codes)


def _first_value(column: NumberColumn | CategoryColumn) -> str:
    if isinstance(column, NumberColumn):
        return _number_label(float(column.values[0]))
    return repr(column.categories[0])


def _number_label(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def numbers_from(values: NDArray[np.generic]) -> NumberColumn:
    """A target column from an array of booleans or numbers, (N,); infinities count as missing."""
    numbers = values.astype(np.float64)
    return NumberColumn(np.where(np.isfinite(numbers), numbers, np.nan))
