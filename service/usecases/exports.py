"""Every trial of an experiment as a file, written while it is read: memory holds one batch, however many there are.

    csv       one row a trial: its own columns, `hyperparameters.NAME`, `lr_schedule.peak` and the four shape numbers
    jsonl     one trial a line, as `GET /v1/trials/{id}` answers it, with its `measurements`
    parquet   one row a trial, columns as in csv but typed; the curve in the list columns `curve.epoch`,
              `curve.value` and `curve.seconds`, of one length (a value is null where it was not a number)

Rows come by number. No transaction is open while a client reads, so a running experiment may grow meanwhile.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import StrEnum

import orjson

from foretune.errors import NotFound
from foretune.json_types import JsonValue
from service.db import exports as export_rows
from service.db.session import Database
from service.db.trials import StoredTrial
from service.usecases import experiments
from service.usecases.exported import SCHEDULE_COLUMNS, TRIAL_COLUMNS, Columns, Curve, columns_of, trial_cells
from service.usecases.trials import to_wire

_TRIALS_A_READ = 200
_EPOCHS_A_BATCH = 50_000
"""Curves are long or short: a batch ends where so many epochs are exceeded."""


class ExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


def stream(
    database: Database,
    project: str,
    experiment_id: str,
    format: ExportFormat,  # noqa: A002 - the wire's word
) -> Iterator[bytes]:
    """The file in pieces. Raises NotFound at once; and in the middle, when the experiment is deleted meanwhile."""
    with database.transaction() as tx:
        experiment = experiments.find(tx, project, experiment_id)
    columns = columns_of(experiment)
    curves = _read(database, project, experiment_id, with_curves=format is not ExportFormat.CSV)
    match format:
        case ExportFormat.CSV:
            return _csv(columns, curves)
        case ExportFormat.JSONL:
            return _jsonl(curves)
        case ExportFormat.PARQUET:
            # Imported here: pyarrow is heavy, and few processes ever write Parquet.
            from service.usecases.parquet import write

            return write(experiment, columns, curves)


def _read(database: Database, project: str, experiment_id: str, *, with_curves: bool) -> Iterator[list[Curve]]:
    last = 0
    while True:
        with database.transaction() as tx:
            experiments.find(tx, project, experiment_id)
            found = export_rows.trials_after(tx, experiment_id, last, _TRIALS_A_READ)
        if not found:
            return
        for part in _parts(found):
            if not with_curves:
                yield [Curve(trial, []) for trial in part]
                continue
            with database.transaction() as tx:
                curves = export_rows.curves(tx, [trial.id for trial in part])
            if any(trial.epochs and not curves[trial.id] for trial in part):
                raise NotFound(f"experiment {experiment_id!r} was deleted while it was exported")
            yield [Curve(trial, curves[trial.id]) for trial in part]
        last = found[-1].number


def _parts(trials: list[StoredTrial]) -> Iterator[list[StoredTrial]]:
    part: list[StoredTrial] = []
    epochs = 0
    for trial in trials:
        if part and epochs + trial.epochs > _EPOCHS_A_BATCH:
            yield part
            part, epochs = [], 0
        part.append(trial)
        epochs += trial.epochs
    yield part


def _csv(columns: Columns, batches: Iterable[list[Curve]]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    header = [*TRIAL_COLUMNS, *(f"hyperparameters.{name}" for name in columns.hyperparameters)]
    if columns.schedule:
        header += [f"lr_schedule.{name}" for name in SCHEDULE_COLUMNS]
    writer.writerow(header)
    yield _taken(text)
    for batch in batches:
        for curve in batch:
            writer.writerow(_csv_row(columns, curve.trial))
        yield _taken(text)


def _csv_row(columns: Columns, trial: StoredTrial) -> list[str]:
    cells = [_cell(value) for value in trial_cells(trial).values()]
    cells += [_cell(trial.hyperparameters.get(name)) for name in columns.hyperparameters]
    if columns.schedule:
        schedule = trial.lr_schedule or {}
        cells += [_cell(schedule.get(name)) for name in SCHEDULE_COLUMNS]
    return cells


def _cell(value: JsonValue | datetime) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case datetime():
            return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data


def _jsonl(batches: Iterable[list[Curve]]) -> Iterator[bytes]:
    dump: Callable[[object], bytes] = orjson.dumps
    for batch in batches:
        lines = []
        for curve in batch:
            line = to_wire(curve.trial).model_dump(mode="json")
            line["measurements"] = [
                {"epoch": one.epoch, "value": one.value, "seconds": one.seconds, "metrics": one.metrics}
                for one in curve.measurements
            ]
            lines.append(dump(line))
        yield b"\n".join(lines) + b"\n"
