"""The histories that a run may learn from: the other tasks of its table, whole or in part, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from benchmarks.transfer_parts.tables import TABLES, Array, Table
from metalearner import Task, TaskHistory

Condition: TypeAlias = Literal[
    "matching", "shuffled", "inverted", "unrelated", "one_trial", "all_failed", "constant", "poisoned"
]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
_UNRELATED = {"taskset": "lcbench", "lcbench": "taskset", "hpobench": "fcnet", "fcnet": "hpobench"}
_SUBSET = 150
_LARGEST = 200
"""Rows of a history of a grid, of which nobody tries everything."""
_HALF = 10


@dataclass(frozen=True)
class Setting:
    """`condition` says what is wrong with the histories; `subset`: a different random part of the rows for each one.

    `few`: of twenty tasks, the ten of the other split are all that there is.
    """

    condition: Condition = "matching"
    subset: bool = False
    few: bool = False

    @property
    def name(self) -> str:
        """As the cache and the report call it."""
        return self.condition + ("_subset" if self.subset else "") + ("_few" if self.few else "")


def histories(table: Table, task: int, setting: Setting, seed: int) -> list[TaskHistory]:
    """What the other tasks of the table (of another one, if unrelated) tell, without features or data set."""
    generator = np.random.default_rng([seed, task, 7])
    origin = TABLES[_UNRELATED[table.name]]() if setting.condition == "unrelated" else table
    found = []
    for number in range(len(origin.tasks)):
        if origin is table and (number == task or (setting.few and table.splits[number] == table.splits[task])):
            continue
        places = np.arange(len(origin.units))
        if setting.subset:
            places = generator.choice(len(places), _SUBSET, replace=False)
        elif len(places) > 1000:
            places = generator.choice(len(places), _LARGEST, replace=False)
        if setting.condition == "one_trial":
            places = places[:1]
        losses = _spoiled(origin.losses[number][places], setting.condition, generator)
        found.append(_history(origin, number, places.tolist(), losses))
    return found


def _spoiled(losses: Array, condition: Condition, generator: np.random.Generator) -> Array:
    match condition:
        case "shuffled":
            return np.asarray(generator.permutation(losses))
        case "inverted":
            # By rank: the worst is called best. Diverged runs are spread over the top in their order.
            order = np.argsort(losses, kind="stable")
            finite = losses[np.isfinite(losses)]
            turned = np.empty(len(losses))
            turned[order[::-1]] = np.sort(
                np.interp(np.linspace(0, 1, len(losses)), np.linspace(0, 1, len(finite)), np.sort(finite))
            )
            return turned
        case "all_failed":
            return np.full(len(losses), np.inf)
        case "constant":
            return np.full(len(losses), 0.5)
        case "poisoned":
            spoiled = losses.copy()
            spoiled[generator.integers(len(losses))] = -1e12
            return spoiled
        case _:
            return losses


def _history(table: Table, number: int, places: list[int], losses: Array) -> TaskHistory:
    sign = -table.goal.sign
    return TaskHistory(
        reference=f"his_{table.name}_{table.tasks[number]}",
        task=Task(table.metric, table.goal),
        space=table.space,
        columns={name: [table.configurations[place].get(name) for place in places] for name in table.space.by_name},
        values=[sign * loss if np.isfinite(loss) else None for loss in losses.tolist()],
    )
