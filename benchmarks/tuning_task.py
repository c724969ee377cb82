"""What both sides of `benchmarks.tuning_wallclock` tune."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workers.datasets.builtin import load_builtin
from workers.datasets.limits import DatasetLimits
from workers.datasets.npz import parse_npz
from workers.datasets.prepare import PreparedData, prepare

NETWORK = "mlp"
TRIALS, EPOCHS = 64, 20


@dataclass(frozen=True)
class Task:
    """A data set: built in, or a file."""

    data: str
    file: Path | None

    def load(self, seed: int) -> PreparedData:
        """Split and standardised as the service does it for an experiment of this seed."""
        if self.file is None:
            return prepare(load_builtin(self.data), seed, "tabular")
        dataset = parse_npz(self.file, name=self.data, task=None, modality=None, limits=DatasetLimits())
        return prepare(dataset, seed, "tabular")


@dataclass(frozen=True)
class Point:
    """An epoch's value, and the seconds since the job began."""

    seconds: float
    value: float
