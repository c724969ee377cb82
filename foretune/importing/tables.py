"""CSV tables, a row a run: anybody's with a mapping of its columns, and the exports of MLflow and W&B."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from foretune.errors import InvalidHistory
from foretune.importing.runs import Found, Heading, Run, history
from foretune.json_types import JsonValue
from foretune.states import TrialState


class Dialect(StrEnum):
    """Whose table it is, and so which columns are hyperparameters."""

    PLAIN = "csv"
    """All columns but the metric's, or those that are mapped."""
    MLFLOW = "mlflow"
    """`params.NAME`; `metrics.NAME`; `status`."""
    WANDB = "wandb"
    """All columns but the metric's and those that W&B adds; `State`."""


_PARAMS, _METRICS = "params.", "metrics."
_WANDB_OWN = frozenset(
    {"name", "state", "notes", "user", "tags", "created", "runtime", "sweep", "id", "group", "job type", "hostname"}
    | {"commit", "github", "gpu count", "gpu type", "os", "path", "description", "jobtype", "entity", "project"}
)
_STATE_COLUMNS = {Dialect.MLFLOW: "status", Dialect.WANDB: "State"}
_STATES = {
    "finished": TrialState.COMPLETED,
    "completed": TrialState.COMPLETED,
    "stopped": TrialState.STOPPED,
    "killed": TrialState.STOPPED,
    "infeasible": TrialState.INFEASIBLE,
    "failed": TrialState.FAILED,
    "crashed": TrialState.FAILED,
    "running": TrialState.RUNNING,
}


def read(path: Path, dialect: Dialect, heading: Heading, columns: Mapping[str, str]) -> Found:
    """The table as one history. `columns`: of the hyperparameters, each with the name it shall have; empty: all.

    Raises InvalidHistory with the file, the line and the column of what is wrong.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if not header:
            raise InvalidHistory(f"{path}: the file is empty; a line of column names is expected")
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    for line, row in rows:
        if len(row) != len(header):
            raise InvalidHistory(f"{path}:{line}: {len(row)} cells, but {len(header)} columns have names")
    metric = _metric_column(path, header, dialect, heading.metric)
    named = _chosen(path, header, dialect, metric, columns)
    state = _STATE_COLUMNS.get(dialect)
    runs = []
    for line, row in rows:
        cells = dict(zip(header, row, strict=True))
        settings = {named[column]: value_of(cells[column]) for column in named if cells[column].strip()}
        said = _STATES.get(cells.get(state, "").strip().lower()) if state else None
        runs.append(_run(settings, _number(path, line, metric, cells[metric]), said))
    return history(heading, runs)


def value_of(cell: str) -> JsonValue:
    """What a cell says: a number, true or false, or a word."""
    text = cell.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read_as in (int, float):
        try:
            value = read_as(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _run(settings: Mapping[str, JsonValue], value: float | None, said: TrialState | None) -> Run:
    if said in (TrialState.FAILED, TrialState.RUNNING):
        return Run(settings, value, state=said)
    if value is None:  # Nobody wrote it down, which is not to say that it was bad.
        return Run(settings, None, state=TrialState.FAILED)
    if not math.isfinite(value):
        return Run(settings, None, state=TrialState.INFEASIBLE)
    return Run(settings, value, state=said or TrialState.COMPLETED)


def _metric_column(path: Path, header: Sequence[str], dialect: Dialect, metric: str) -> str:
    wanted = f"{_METRICS}{metric}" if dialect is Dialect.MLFLOW and not metric.startswith(_METRICS) else metric
    if wanted not in header:
        raise InvalidHistory(f"{path}:1: there is no column {wanted!r}; there are {', '.join(header)}")
    return wanted


def _chosen(
    path: Path, header: Sequence[str], dialect: Dialect, metric: str, columns: Mapping[str, str]
) -> dict[str, str]:
    for column in columns:
        if column not in header:
            raise InvalidHistory(f"{path}:1: there is no column {column!r}; there are {', '.join(header)}")
    if columns:
        return dict(columns)
    if dialect is Dialect.MLFLOW:
        return {one: one.removeprefix(_PARAMS) for one in header if one.startswith(_PARAMS)}
    own = _WANDB_OWN if dialect is Dialect.WANDB else frozenset()
    return {
        one: one
        for one in header
        if one != metric and one.strip().lower() not in own and not (own and one.startswith("_"))
    }


def _number(path: Path, line: int, column: str, cell: str) -> float | None:
    if not cell.strip():
        return None
    try:
        return float(cell)
    except ValueError:
        raise InvalidHistory(f"{path}:{line}: column {column!r} holds {cell!r}, which is no number") from None
