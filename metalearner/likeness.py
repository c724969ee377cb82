"""How like one task many others are: what decides which histories are heard, and how much each one counts.

Symbols: H other tasks, F features that any of them has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from metalearner.arrays import Array, Index, Mask, Words
from metalearner.histories import Task
from metalearner.task_sample import FEATURE as SAMPLE

ALMOST = 0.8
"""The similarity of tasks that no feature tells apart and that are not known to be the same."""
_LEAST = 0.1
_UNKNOWN = 0.2
"""The similarity of tasks of which too little is known."""
_OTHER_NETWORK = 0.3
_OTHER_METRIC = 0.7
_STEEPNESS = 1.5
_COUNTS = frozenset({"rows", "features", "classes", "parameters", "rows_per_feature", "max_epochs", "batch_size"})


class Likeness(Protocol):
    """One way to compare tasks."""

    def weights(self, task: Task, others: Sequence[Task]) -> Array:
        """How far what worked on each of the others should work on the task: from 0, no relation, to 1, the same data
        and network: (H,)."""
        ...


class FeatureLikeness:
    """By the features that both have, those that classify apart from those that do something else.

    What is known of the others as arrays is kept from call to call while `others` stays the same object.
    """

    def __init__(self) -> None:
        self._table = TaskTable(())

    def weights(self, task: Task, others: Sequence[Task]) -> Array:
        if self._table.tasks is not others:
            self._table = TaskTable(others)
        distances = self._table.distances(task)
        near = np.maximum(_LEAST, ALMOST * np.exp(-_STEEPNESS * distances))
        near[np.isnan(distances)] = _UNKNOWN
        return self._table.similarities(task, near)


def feature_distance(left: Mapping[str, float | str], right: Mapping[str, float | str]) -> float | None:
    """Root mean square difference of the features that both have, counts on a logarithmic scale; words are the same
    or 1 apart. None when there is none.
    """
    differences = []
    for name in (left.keys() & right.keys()) - {SAMPLE}:
        a, b = left[name], right[name]
        if isinstance(a, str) or isinstance(b, str):
            differences.append(float(a != b))
        else:
            differences.append(scaled_feature(name, a) - scaled_feature(name, b))
    if not differences:
        return None
    return math.sqrt(math.fsum(difference**2 for difference in sorted(differences, key=abs)) / len(differences))


def scaled_feature(name: str, value: float) -> float:
    """A number that describes a task, on the scale on which tasks are compared."""
    if name in _COUNTS:
        return math.log10(1.0 + abs(value))
    return math.asinh(max(min(value, 1e100), -1e100))


class TaskTable:
    """H tasks as columns. Features are numbers (H, F), NaN where there is none, and codes of words (H, F), -1 where
    none.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self._datasets, self._networks, self._kinds, self._metrics, self._goals = (
            np.array(column, dtype=object)
            for column in (
                [task.dataset for task in tasks],
                [task.network for task in tasks],
                [task.kind for task in tasks],
                [task.metric for task in tasks],
                [task.goal for task in tasks],
            )
        )
        self._names = sorted({name for task in tasks for name in task.features} - {SAMPLE})
        places = {name: place for place, name in enumerate(self._names)}
        self._codes: dict[str, int] = {}
        self._numbers = np.full((len(tasks), len(places)), np.nan)
        self._words: Index = np.full((len(tasks), len(places)), -1, dtype=np.intp)
        for row, task in enumerate(tasks):
            for name, value in task.features.items():
                if name == SAMPLE:
                    continue
                if isinstance(value, str):
                    self._words[row, places[name]] = self._codes.setdefault(value, len(self._codes))
                else:
                    self._numbers[row, places[name]] = scaled_feature(name, value)

    def similarities(self, task: Task, near: Array) -> Array:
        """How much each of the tasks should count that are so near by what describes them: (H,) -> (H,).

        A task without a metric is one to which every metric speaks.
        """
        near = near.copy()
        if task.kind is not None:
            near[~(_are(self._kinds, None) | _are(self._kinds, task.kind))] = 0.0
        if task.dataset is not None:
            near[_are(self._datasets, task.dataset)] = 1.0
        near[~_are(self._networks, task.network)] *= _OTHER_NETWORK
        if task.metric:
            near[~(_are(self._metrics, task.metric) & _are(self._goals, task.goal))] *= _OTHER_METRIC
        return near

    def distances(self, task: Task) -> Array:
        """Root mean square difference of the features in common, NaN where there is none: (H,)."""
        numbers, words = np.full(len(self._names), np.nan), np.full(len(self._names), -1)
        for place, name in enumerate(self._names):
            value = task.features.get(name)
            if isinstance(value, str):
                words[place] = self._codes.get(value, len(self._codes))
            elif value is not None:
                numbers[place] = scaled_feature(name, value)
        theirs, ours = self._words >= 0, words >= 0
        common = (theirs | ~np.isnan(self._numbers)) & (ours | ~np.isnan(numbers))  # (H, F)
        squares = np.where(theirs | ours, self._words != words, (self._numbers - numbers) ** 2)
        count = common.sum(1)
        total = np.where(common, squares, 0.0).sum(1)
        return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)


def _are(column: Words, value: str | None) -> Mask:
    """Which of the entries are this one: (H,) -> (H,)."""
    return np.asarray(column == value, dtype=bool)
