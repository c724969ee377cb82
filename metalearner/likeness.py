"""How like one task many others are: what decides which histories are heard, and how much each one counts.

Symbols: H other tasks, F features that any of them has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from metalearner import task_sample
from metalearner.arrays import Array, Index
from metalearner.histories import Task, scaled_feature, similarity_at


class Likeness(Protocol):
    """One way to compare tasks."""

    def weights(self, task: Task, others: Sequence[Task]) -> Array:
        """From 0, no relation, to 1, the same data and network: (H,)."""
        ...


class FeatureLikeness:
    """`metalearner.similarity` with many tasks at once. What the others' features are as arrays is kept from call to
    call while `others` stays the same object.
    """

    def __init__(self) -> None:
        self._table = _FeatureTable(())

    def weights(self, task: Task, others: Sequence[Task]) -> Array:
        if self._table.tasks is not others:
            self._table = _FeatureTable(others)
        distances = self._table.distances(task)
        known = zip(others, distances.tolist(), strict=True)
        return np.array(
            [
                similarity_at(_seen_from(task, other), other, None if math.isnan(distance) else distance)
                for other, distance in known
            ]
        )


def _seen_from(task: Task, other: Task) -> Task:
    return task if task.metric else replace(task, metric=other.metric, goal=other.goal)


class _FeatureTable:
    """The features of H tasks: numbers (H, F), NaN where there is none, and codes of words (H, F), -1 where none."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self._names = sorted({name for task in tasks for name in task.features} - {task_sample.FEATURE})
        places = {name: place for place, name in enumerate(self._names)}
        self._codes: dict[str, int] = {}
        self._numbers = np.full((len(tasks), len(places)), np.nan)
        self._words: Index = np.full((len(tasks), len(places)), -1, dtype=np.intp)
        for row, task in enumerate(tasks):
            for name, value in task.features.items():
                if name == task_sample.FEATURE:
                    continue
                if isinstance(value, str):
                    self._words[row, places[name]] = self._codes.setdefault(value, len(self._codes))
                else:
                    self._numbers[row, places[name]] = scaled_feature(name, value)

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
