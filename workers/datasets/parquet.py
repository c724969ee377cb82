"""Parquet: the types that the file declares are kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Dataset
from workers.datasets.limits import DatasetLimits
from workers.datasets.table import dataset_from_table

_EXPANSION = 20
"""Decoded pages may be this many times as large as an upload may be; more is a decompression bomb."""


def parse_parquet(path: Path, *, name: str, target: str | None, task: Task | None, limits: DatasetLimits) -> Dataset:
    """A tabular data set from a Parquet file.

    Sizes are checked in the file's footer before a page is decoded. Raises InvalidDataset.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            footer = file.metadata
            schema = file.schema_arrow
            _refuse_repeated(schema.names)
            limits.check_table(footer.num_rows, len(schema.names))
            unpacked = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
            if unpacked > limits.size_bytes * _EXPANSION:
                raise InvalidDataset(
                    f"the file unpacks to {unpacked:,} bytes; at most {limits.size_bytes * _EXPANSION:,} are allowed"
                )
        # Texts stay dictionary-encoded: a long text repeated in a million rows would fill the memory.
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        with pa.parquet.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)  # texts may hold bytes that are not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"the file cannot be read as Parquet: {_first_line(error)}") from error
    notes: tuple[str, ...] = ()
    hidden = [column for column in table.column_names if column.startswith("__index_level_")]
    if hidden:
        table = table.drop_columns(hidden)
        notes = (f"the pandas index ({', '.join(hidden)}) was left out",)
    return dataset_from_table(table, name=name, target=target, task=task, texts=False, notes=notes)


def _refuse_repeated(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InvalidDataset(f"column name {', '.join(map(repr, repeated[:5]))} appears more than once")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
