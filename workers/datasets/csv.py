"""CSV: UTF-8 with a header line, separated by commas, semicolons, tabs or bars; quoting as in RFC 4180.

Arrow reads the cells; Python's own reader finds the delimiter and, when Arrow refuses a row, its exact line.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Dataset
from workers.datasets.limits import DatasetLimits, check_enough_rows
from workers.datasets.table import dataset_from_table
from workers.datasets.unicode import decode_utf8

DELIMITERS = (",", ";", "\t", "|")
_DELIMITER_NAMES = {",": "commas", ";": "semicolons (';')", "\t": "tabs", "|": "bars ('|')"}
_SNIFFED_RECORDS = 50
_SNIFFED_BYTES = 1 << 18


@dataclass(frozen=True)
class _Record:
    line: int  # where it starts, from 1
    values: list[str]


def parse_csv(content: bytes, *, name: str, target: str | None, task: Task | None, limits: DatasetLimits) -> Dataset:
    """A tabular data set from the bytes of a CSV file.

    Raises InvalidDataset naming the line (from 1, the header's line included) of what is wrong.
    """
    decode_utf8(content)  # refuses what is not text, naming the place
    delimiter = _find_delimiter(content)
    first = next(_records(content, delimiter), None)
    if first is None:
        raise InvalidDataset("the file holds only blank lines; a header line and data rows are needed")
    header = _column_names(first)
    if len(header) > limits.columns:
        limits.check_table(rows=0, columns=len(header))
    _refuse_one_column(first)
    table = _read_cells(content, header, delimiter)
    limits.check_table(table.num_rows, table.num_columns)
    notes = () if delimiter == "," else (f"values are separated by {_DELIMITER_NAMES[delimiter]}",)
    return dataset_from_table(
        table,
        name=name,
        target=target.strip() if target is not None else None,
        task=task,
        texts=True,
        decimal_comma=delimiter == ";",
        notes=notes,
    )


def _find_delimiter(content: bytes) -> str:
    """The delimiter under which most of the first records are as long as the header; commas win a tie."""
    sample = content[:_SNIFFED_BYTES]
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            records = list(itertools.islice(_records(sample, delimiter), _SNIFFED_RECORDS))
        except InvalidDataset:
            continue
        if not records or len(records[0].values) < 2:
            continue
        width = len(records[0].values)
        agreeing = sum(len(record.values) == width for record in records) / len(records)
        if (agreeing, width) > best_score:
            best, best_score = delimiter, (agreeing, width)
    return best


def _records(content: bytes, delimiter: str) -> Iterator[_Record]:
    """The records with their lines; blank lines are skipped. Raises InvalidDataset where quoting is broken."""
    # A sample may end within a character; everything else was found to be UTF-8 before.
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise InvalidDataset(f"line {line}: cannot be read as CSV ({error}); is a quote never closed?") from error
        if values is None:
            return
        if values:
            yield _Record(line, values)


def _column_names(header: _Record) -> list[str]:
    names = [value.strip() for value in header.values]
    if _looks_like_data(names):
        shown = ", ".join(names[:4])
        raise InvalidDataset(
            f"line {header.line}: the first line looks like data ({shown}, …), not like column names; add a header line"
        )
    taken = {name for name in names if name}
    for position, name in enumerate(names):
        if not name:
            # pandas writes its index under an empty name.
            names[position] = "index" if position == 0 and "index" not in taken else f"column_{position + 1}"
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InvalidDataset(
            f"line {header.line}: column name {', '.join(map(repr, repeated[:5]))} appears more than once; "
            "give every column its own name"
        )
    return names


def _looks_like_data(names: list[str]) -> bool:
    numbers: list[float] = []
    for name in names:
        try:
            numbers.append(float(name))
        except ValueError:
            continue
    # Different whole numbers are a header too: years, or the 0, 1, 2, … that pandas writes for nameless columns.
    whole = all(number.is_integer() for number in numbers) and len(set(numbers)) == len(numbers)
    return len(numbers) * 2 > len(names) and not whole


def _refuse_one_column(header: _Record) -> None:
    if len(header.values) > 1:
        return
    name = header.values[0].strip()
    separators = {":": "':'", "~": "'~'", "^": "'^'", " ": "spaces"}
    seen = next((words for mark, words in separators.items() if mark in name), None)
    guess = f"; values seem to be separated by {seen}: save the file with commas" if seen else ""
    raise InvalidDataset(
        f"line {header.line}: only one column ({name!r}) was found, and a table needs at least one feature "
        f"and a target{guess}"
    )


def _read_cells(content: bytes, header: list[str], delimiter: str) -> pa.Table:
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            # One block: a quoted value may be as long as the file.
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=len(content) + 1, autogenerate_column_names=True
            ),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types={f"f{position}": pa.string() for position in range(len(header))},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        _refuse_ragged(content, len(header), delimiter)
        raise InvalidDataset(f"the file cannot be read as CSV: {error}") from error
    # The header was read as the first row, because Arrow would drop all but the last of repeated names.
    return table.slice(1).rename_columns(header)


def _refuse_ragged(content: bytes, width: int, delimiter: str) -> None:
    rows = -1
    for record in _records(content, delimiter):
        rows += 1
        if len(record.values) == width:
            continue
        found = f"line {record.line}: {len(record.values)} value(s), but the header has {width} columns"
        if any("\n" in value for value in record.values):
            found += "; is a quote never closed?"
        elif len(record.values) == width + 1 and record.values[-1] == "":
            found += "; remove the delimiter at the end of the line"
        raise InvalidDataset(found)
    check_enough_rows(max(rows, 0))
