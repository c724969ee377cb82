"""Real learning curves: every trial of a task to its last epoch, whatever it came to.

The starter history ships with the project (122 jobs of 32 trials, 5 to 12 epochs). LCBench and TaskSet (1,000 trials of
52 and 51 epochs a task) are read from the folder that FORETUNE_BENCH_DATA names, where that is set.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np
import orjson

from benchmarks.transfer_parts.tables import TABLES, Array, Table
from foretune.json_types import JsonObject
from foretune.metrics import Goal
from workers.starter.shelf import PACKED

Split: TypeAlias = Literal["development", "report"]
_DEVELOPMENT_DATA = ("breast_cancer", "diabetes", "digits", "code")
"""Starter jobs on these data sets and on variants of them."""
_DEVELOPMENT_CELLS = ("LSTM", "GRU")
"""TaskSet's networks with these cells; those with plain recurrent cells are for the report."""
_DIVERGED = 1e3
"""A loss of TaskSet beyond it."""


@dataclass(frozen=True)
class CurveTask:
    """`merits` (N, R): larger is better, -inf from where a trial has diverged. `table`: whose rows the trials are."""

    group: str
    name: str
    split: Split
    goal: Goal
    merits: Array
    table: Table | None = None

    @property
    def best(self) -> Array:
        """The best merit so far at each epoch: (N, R)."""
        return np.maximum.accumulate(self.merits, axis=1)

    def regret(self, merit: float) -> float:
        """0 for the best trial of the task, 1 for the median one."""
        finals = self.best[:, -1]
        top, median = float(finals.max()), float(np.median(finals[np.isfinite(finals)]))
        return (top - merit) / max(top - median, 1e-9)


def tasks(split: Split) -> list[CurveTask]:
    """All tasks of a split, by group."""
    found = list(_starter())
    if os.environ.get("FORETUNE_BENCH_DATA"):
        found += [*_lcbench(), *_taskset()]
    return [task for task in found if task.split == split]


def _starter() -> Iterator[CurveTask]:
    for line in gzip.decompress(PACKED.read_bytes()).splitlines():
        job = orjson.loads(line)
        goal = Goal(job["metric"]["goal"])
        data = str(job["name"]).split("-", 1)[1].split(".")[0]
        merits = np.array([_merits(trial, goal, job["max_epochs"]) for trial in job["trials"]])
        group = "starter mlp" if job["network"] == "mlp" else "starter gru, cnn, transformer"
        split: Split = "development" if data in _DEVELOPMENT_DATA else "report"
        yield CurveTask(group, job["name"], split, goal, merits)


def _merits(trial: JsonObject, goal: Goal, max_epochs: int) -> list[float]:
    curve = cast("list[float | None]", trial["curve"])
    known = [-np.inf if value is None else goal.sign * value for value in curve]
    return known + [-np.inf] * (max_epochs - len(known))


def _arrays(name: str) -> dict[str, Array]:
    with np.load(Path(os.environ["FORETUNE_BENCH_DATA"]) / name) as file:
        return {key: file[key] for key in sorted(file.files)}


def _lcbench() -> Iterator[CurveTask]:
    """Every second data set is for the report."""
    arrays = [(name, values) for name, values in _arrays("lcbench_dev.npz").items() if name != "X"]
    for number, (name, values) in enumerate(arrays):
        split: Split = "development" if number % 2 == 0 else "report"
        merits = values[:, :, 1].astype(np.float64)
        yield CurveTask("lcbench", name, split, Goal.MAXIMIZE, merits, TABLES["lcbench"]())


def _taskset() -> Iterator[CurveTask]:
    for name, values in _arrays("taskset_dev.npz").items():
        if name == "hp":
            continue
        losses = values[:, 1].astype(np.float64)
        merits = np.where(np.isfinite(losses) & (losses < _DIVERGED), -losses, -np.inf)
        split: Split = "development" if any(cell in name for cell in _DEVELOPMENT_CELLS) else "report"
        yield CurveTask("taskset", name, split, Goal.MINIMIZE, merits, TABLES["taskset"]())
