"""What `foretune import` is told about files of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import typer

from foretune.importing import exports, optuna, tables
from foretune.importing.runs import Found, Heading
from foretune.metrics import Goal


class Origin(StrEnum):
    """What a file is."""

    JSONL = "jsonl"
    OPTUNA = "optuna"
    CSV = "csv"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@dataclass(frozen=True)
class Wanted:
    """What is to be read of a file, in the words of the command line."""

    origin: Origin
    metric: str | None
    columns: Sequence[str]
    features: Mapping[str, float | str]
    study: str | None

    def read(self, file: str) -> Iterator[Found]:
        """The histories in a file. Raises InvalidHistory, and BadParameter where an option is missing."""
        if self.origin is Origin.OPTUNA:
            metric = self.metric.partition(":")[0] if self.metric else None
            yield from optuna.read(file, self.study, metric, self.features)
            return
        path, columns = Path(file), self._columns()
        heading = self._heading(path)
        if not path.exists():
            raise typer.BadParameter(f"{file}: no such file", param_hint="FILE")
        if self.origin is Origin.CSV or path.suffix.lower() == ".csv":
            yield tables.read(path, tables.Dialect(self.origin.value), heading, columns)
        elif self.origin is Origin.WANDB:
            yield exports.read_wandb(path, heading, columns)
        else:
            yield exports.read_mlflow(path, heading, columns)

    def _heading(self, path: Path) -> Heading:
        name, separator, goal = (self.metric or "").rpartition(":")
        if not separator or goal not in (Goal.MAXIMIZE, Goal.MINIMIZE):
            raise typer.BadParameter("say what was tuned, as NAME:maximize or NAME:minimize", param_hint="--metric")
        return Heading(path.stem, name, Goal(goal), self.features)

    def _columns(self) -> dict[str, str]:
        found = {}
        for pair in self.columns:
            column, separator, name = pair.rpartition("=")
            if not separator or not column or not name:
                raise typer.BadParameter(f"{pair!r} is not COLUMN=NAME", param_hint="--map")
            found[column] = name
        return found
