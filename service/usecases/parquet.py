"""Trials as a Parquet file, one row group a batch. The only importer of pyarrow in the service."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer

from foretune.json_types import JsonValue
from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import Space
from service.db.experiments import StoredExperiment
from service.usecases.exported import SCHEDULE_COLUMNS, Columns, Curve, trial_cells


@dataclass(frozen=True)
class _Kind:
    """The type of a hyperparameter's column; what no one type holds is written as JSON text."""

    type: pa.DataType
    json: bool = False

    def cell(self, value: JsonValue) -> JsonValue:
        if value is None:
            return None
        if self.json:
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value) if pa.types.is_integer(self.type) else float(value)
        return value


_FLOAT, _INTEGER, _BOOL, _TEXT = _Kind(pa.float64()), _Kind(pa.int64()), _Kind(pa.bool_()), _Kind(pa.string())
_JSON = _Kind(pa.string(), json=True)


class _Pieces(io.RawIOBase):
    """Where the writer writes: what is there is taken away again and again."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Buffer) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def write(experiment: StoredExperiment, columns: Columns, batches: Iterable[list[Curve]]) -> Iterator[bytes]:
    """The file in pieces."""
    kinds = {name: _kind_of(experiment, name) for name in columns.hyperparameters}
    schema = _schema(columns, kinds)
    pieces = _Pieces()
    with pq.ParquetWriter(pa.PythonFile(pieces, mode="w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist([_row(columns, kinds, curve) for curve in batch], schema))
            yield pieces.take()
    yield pieces.take()


def _schema(columns: Columns, kinds: Mapping[str, _Kind]) -> pa.Schema:
    moment = pa.timestamp("us", tz="UTC")
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("best_value", pa.float64()),
        pa.field("best_epoch", pa.int32()),
        pa.field("epochs", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("training_seconds", pa.float64(), nullable=False),
        pa.field("created_at", moment, nullable=False),
        pa.field("started_at", moment),
        pa.field("finished_at", moment),
        pa.field("reason", pa.string()),
        *(pa.field(f"hyperparameters.{name}", kind.type) for name, kind in kinds.items()),
    ]
    if columns.schedule:
        fields += [pa.field(f"lr_schedule.{name}", pa.float64()) for name in SCHEDULE_COLUMNS]
    fields += [
        pa.field("curve.epoch", pa.list_(pa.int32()), nullable=False),
        pa.field("curve.value", pa.list_(pa.float64()), nullable=False),
        pa.field("curve.seconds", pa.list_(pa.float64()), nullable=False),
    ]
    return pa.schema(fields)


def _row(columns: Columns, kinds: Mapping[str, _Kind], curve: Curve) -> dict[str, object]:
    trial = curve.trial
    row: dict[str, object] = dict(trial_cells(trial))
    row |= {f"hyperparameters.{name}": kind.cell(trial.hyperparameters.get(name)) for name, kind in kinds.items()}
    if columns.schedule:
        schedule = trial.lr_schedule or {}
        row |= {f"lr_schedule.{name}": _FLOAT.cell(schedule.get(name)) for name in SCHEDULE_COLUMNS}
    row["curve.epoch"] = [one.epoch for one in curve.measurements]
    row["curve.value"] = [one.value for one in curve.measurements]
    row["curve.seconds"] = [one.seconds for one in curve.measurements]
    return row


def _kind_of(experiment: StoredExperiment, name: str) -> _Kind:
    if name in experiment.fixed:
        return _common_kind([experiment.fixed[name]])
    match Space.from_json(experiment.space).by_name[name]:
        case Float():
            return _FLOAT
        case Int():
            return _INTEGER
        case Bool():
            return _BOOL
        case Categorical() as parameter:
            return _common_kind(parameter.choices)
    return _JSON


def _common_kind(values: Sequence[JsonValue]) -> _Kind:
    """The one type that holds all of these."""
    types = {type(value) for value in values}
    if types == {str}:
        return _TEXT
    if types == {bool}:
        return _BOOL
    if types == {int} and all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        return _INTEGER
    if types <= {int, float}:
        return _FLOAT
    return _JSON
