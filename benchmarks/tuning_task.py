"""What both sides of `benchmarks.tuning_wallclock` tune."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.datasets.builtin import load_builtin
from workers.datasets.limits import DatasetLimits
from workers.datasets.npz import parse_npz
from workers.datasets.prepare import PreparedData, prepare

NETWORK = "mlp"
TRIALS, EPOCHS = 64, 20
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts it."""


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


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads the IDX format: two zero bytes, the type (8: unsigned bytes), the rank, the sizes, the bytes."""
    with gzip.open(path) as file:
        raw = file.read()
    assert raw[:3] == b"\0\0\x08", f"{path} is not a file of unsigned bytes"
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(tuple(int(size) for size in shape))
