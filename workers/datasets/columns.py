"""What a column of a table holds: numbers, categories or nothing.

A CSV column arrives as text and is read as the first of these that fits all its values: numbers, ISO 8601 dates
(which become days since 1970-01-01), categories. A Parquet column keeps the type that its file declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretune.errors import InvalidDataset

MISSING_TOKENS: tuple[str, ...] = (
    "", "?", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "null", "NULL", "Null", "NaT",
)  # fmt: skip
"""Cell texts that stand for a missing value, after surrounding blanks are removed."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DECIMAL_COMMA = r"^[+-]?\d*,?\d+$"
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_BOOLEANS = {"true", "false"}
_MICROSECONDS_PER_DAY = 86_400_000_000
_ODD_TOKEN_NEEDS_DISTINCT = 20
_TRIED_FIRST = 1000


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """`values` (N,) float64, NaN where missing, never infinite."""

    values: NDArray[np.float64]
    is_date: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CategoryColumn:
    """`codes` (N,) int64 into `categories`, -1 where missing. Categories are sorted."""

    codes: NDArray[np.int64]
    categories: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def read_text_column(
    values: pa.ChunkedArray, *, decimal_comma: bool = False, forgive_odd_token: bool = True
) -> NumberColumn | CategoryColumn:
    """Types a column of texts. `decimal_comma` reads `3,14` as a number, as files separated by `;` write it.

    `forgive_odd_token`: one single word in an otherwise numeric column ("unknown", "None", "-") means missing.
    """
    trimmed = pc.utf8_trim_whitespace(values)
    missing = pc.is_in(trimmed, value_set=pa.array(MISSING_TOKENS))
    texts = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    numbers = _numbers(texts, decimal_comma)
    if numbers is not None:
        return numbers
    if forgive_odd_token:
        numbers = _numbers_but_one_word(texts)
        if numbers is not None:
            return numbers
    dates = _dates(texts)
    return dates if dates is not None else _categories(texts)


def read_typed_column(values: pa.ChunkedArray) -> NumberColumn | CategoryColumn:
    """Reads a column whose type the file declares. Raises InvalidDataset on nested and binary types."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type):
            return _categories(values)
        return read_typed_column(values.cast(kind.value_type))
    if pa.types.is_null(kind):
        return NumberColumn(np.full(len(values), np.nan))
    if pa.types.is_boolean(kind):
        return _categories(pc.if_else(values, "true", "false"))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_float64(_to_numpy(values))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _categories(values)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _from_timestamps(values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False))
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return _from_float64(_to_numpy(values.cast(whole)))
    raise InvalidDataset(f"has type {kind}; numbers, texts, booleans and dates can be read: flatten or drop it")


def distinct_count(column: NumberColumn | CategoryColumn) -> int:
    """How many different values there are, missing ones aside."""
    if isinstance(column, CategoryColumn):
        return len(column.categories)
    return int(np.unique(column.values[~np.isnan(column.values)]).size)


def missing_rows(column: NumberColumn | CategoryColumn) -> NDArray[np.int64]:
    """The row numbers, from 0, of the missing values."""
    gone = np.isnan(column.values) if isinstance(column, NumberColumn) else column.codes < 0
    return np.flatnonzero(gone)


def sorted_labels(labels: Sequence[str]) -> list[str]:
    """By value where every label is a number, else by code point: an order that depends on no locale."""
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def _numbers(texts: pa.ChunkedArray, decimal_comma: bool) -> NumberColumn | None:
    cast = _cast_or_none(texts, pa.float64())
    if cast is not None:
        return _from_float64(_to_numpy(cast))
    present = pc.drop_null(texts)
    if decimal_comma and _all_match(present, f"{_DECIMAL_COMMA}|{_NUMBER}"):
        changed = pc.replace_substring(texts, ",", ".")
        return _from_float64(_to_numpy(pc.cast(changed, pa.float64())), ("decimal commas were read as points",))
    if not decimal_comma and _all_match(present, f"{_THOUSANDS}|{_NUMBER}"):
        changed = pc.replace_substring(texts, ",", "")
        return _from_float64(_to_numpy(pc.cast(changed, pa.float64())), ("commas between thousands were removed",))
    return None


def _numbers_but_one_word(texts: pa.ChunkedArray) -> NumberColumn | None:
    numeric = pc.match_substring_regex(texts, _NUMBER)
    if pc.sum(numeric).as_py() in (None, 0):
        return None
    words = pc.unique(texts.filter(pc.invert(numeric)))
    if len(words) != 1:
        return None
    values = _to_numpy(pc.cast(pc.if_else(numeric, texts, pa.scalar(None, pa.string())), pa.float64()))
    if np.unique(values[~np.isnan(values)]).size <= _ODD_TOKEN_NEEDS_DISTINCT:
        return None
    return _from_float64(values, (f"{words[0].as_py()!r} among numbers was read as missing",))


def _dates(texts: pa.ChunkedArray) -> NumberColumn | None:
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")):
        cast = _cast_or_none(texts, kind)
        if cast is not None:
            return _from_timestamps(cast.cast(pa.timestamp("us", kind.tz), safe=False))
    return None


def _from_timestamps(values: pa.ChunkedArray) -> NumberColumn:
    days = _to_numpy(values.cast(pa.int64())) / _MICROSECONDS_PER_DAY
    return NumberColumn(days, is_date=True, notes=("dates were read as days since 1970-01-01",))


def _from_float64(values: NDArray[np.float64], notes: tuple[str, ...] = ()) -> NumberColumn:
    # Beyond float32 is as good as infinite: the networks compute in float32.
    too_large = np.abs(values) > np.finfo(np.float32).max
    if too_large.any():
        values = np.where(too_large, np.nan, values)
        notes = (*notes, f"{int(too_large.sum())} infinite or too large value(s) were read as missing")
    return NumberColumn(values, notes=notes)


def _categories(texts: pa.ChunkedArray) -> CategoryColumn:
    if not pa.types.is_dictionary(texts.type):
        texts = pc.dictionary_encode(texts)
    combined = texts.unify_dictionaries().combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # a column without rows
        combined = combined.chunk(0)
    entries = combined.dictionary.to_pylist()
    # A dictionary may repeat an entry or hold unused and empty ones; the labels below decide.
    labels = [_label(entry) for entry in entries]
    codes = combined.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    used = {labels[code] for code in np.unique(codes[codes >= 0]).tolist()} - {""}
    if used and {label.casefold() for label in used} <= _BOOLEANS:
        labels = [label.casefold() for label in labels]
        used = {label.casefold() for label in used}
    categories = sorted_labels(list(used))
    position = {label: code for code, label in enumerate(categories)}
    # The last entry serves code -1: missing stays missing.
    translation = np.array([position.get(label, -1) for label in labels] + [-1], dtype=np.int64)
    return CategoryColumn(translation[codes], tuple(categories))


def _label(entry: object) -> str:
    return "" if entry is None else str(entry).strip()


def _cast_or_none(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        # Arrow makes an error of every value it cannot cast, a microsecond each: ask a few first.
        pc.cast(texts.slice(0, _TRIED_FIRST), kind)
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        return None


def _all_match(texts: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def _to_numpy(values: pa.ChunkedArray) -> NDArray[np.float64]:
    numbers = pc.cast(values, pa.float64(), safe=False)
    return np.asarray(numbers.to_numpy(), dtype=np.float64)
