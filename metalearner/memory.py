"""What a proposer may keep between calls: encoded observations and fitted kernels, and nothing that changes a result.

Everything here is a function of the problem and of a prefix of its observations, in their order of arrival.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from foretune.metrics import Goal
from foretune.spaces import Configuration
from metalearner.arrays import Array
from metalearner.encoding import Encoding, is_among
from metalearner.outlook import outlook
from metalearner.values import Observation, Problem

_T = TypeVar("_T")
_LARGEST_LOSS = 1e100
"""Beyond it squares overflow, and nobody tells such losses apart."""
_CURVES = 256
"""So many of the last finished trials tell what stopped ones would have come to."""
_KEPT_ROWS = 512
"""So many configurations are encoded once, however often they come: while they wait, and with their results."""
_FEW = 16
"""Of more new results than this hardly any were seen before."""


class History:
    """Observations as arrays, encoded once each.

    `rows` (n, D), `features` (n, P), `losses` (n,): less is better, infinite where infeasible.
    """

    def __init__(self, problem: Problem) -> None:
        self.encoding = Encoding.of(problem.space)
        self._goal = problem.goal
        self._observations: list[Observation] = []
        self._names = [parameter.name for parameter in problem.space.parameters]
        self._encoded: dict[str, Array] = {}
        """Rows by the values that they stand for."""
        self._rows = np.empty((0, self.encoding.width))
        self._features = np.empty((0, len(self.encoding.groups)))
        self._losses = np.empty(0)
        self._curves: list[tuple[int, Array]] = []
        """Of finished trials whose epochs are known: the place, and the least loss up to each epoch."""
        self._stopped: list[int] = []
        self._expected: tuple[int, Array] = (0, np.empty(0))

    def __len__(self) -> int:
        return len(self._observations)

    @property
    def rows(self) -> Array:
        return self._rows[: len(self)]

    @property
    def features(self) -> Array:
        return self._features[: len(self)]

    @property
    def losses(self) -> Array:
        return self._losses[: len(self)]

    def expected(self, count: int) -> Array:
        """The first `count` losses, of stopped trials those that they would have come to as these results tell."""
        if self._expected[0] != count:
            self._expected = (count, self._looked_out(count))
        return self._expected[1]

    def _looked_out(self, count: int) -> Array:
        losses = self._losses[:count]
        stopped = np.array([place for place in self._stopped if place < count], dtype=np.intp)
        curves = [curve for place, curve in self._curves if place < count][-_CURVES:]
        if not len(stopped) or not curves:
            return losses
        finished = np.full((len(curves), max(map(len, curves))), np.nan)
        for line, curve in zip(finished, curves, strict=True):
            line[: len(curve)] = curve
        epochs = np.array([self._observations[place].epochs for place in stopped], dtype=np.intp)
        expected = losses.copy()
        expected[stopped] = outlook(finished, epochs, losses[stopped])
        return expected

    @property
    def step(self) -> float:
        """The least difference between two results of a coarse metric, of which some are equal; 0 of a fine one."""
        losses = self.losses[np.isfinite(self.losses)]
        different = np.unique(losses)
        return float(np.diff(different).min()) if 1 < len(different) < len(losses) else 0.0

    def has(self, row: Array, pending: Sequence[Array] = ()) -> bool:
        """Whether `row` (D,) is the configuration of a result, or one of the `pending` rows."""
        return is_among(row, self.rows) or (bool(pending) and is_among(row, np.array(pending)))

    def rows_of(self, configurations: Sequence[Configuration]) -> list[Array]:
        """Their rows, each different one encoded once. Raises InvalidConfiguration."""
        texts = [repr([one.get(name, ...) for name in self._names]) for one in configurations]
        new = {text: one for text, one in zip(texts, configurations, strict=True) if text not in self._encoded}
        if len(self._encoded) > _KEPT_ROWS:
            self._encoded, new = {}, dict(zip(texts, configurations, strict=True))
        if new:
            self._encoded |= zip(new, self.encoding.encode_all(list(new.values())), strict=True)
        return [self._encoded[text] for text in texts]

    def continued_by(self, observations: Sequence[Observation]) -> bool:
        """Whether `observations` begin with those held here. Cheap when they are the same objects."""
        known = len(self)
        return len(observations) >= known and list(observations[:known]) == self._observations

    def extend(self, observations: Sequence[Observation]) -> None:
        """Adds what comes after those held here."""
        known = len(self)
        added = list(observations[known:])
        if not added:
            return
        total = known + len(added)
        if total > len(self._losses):
            self._grow(max(total, 2 * len(self._losses), 64))
        configurations = [observation.configuration for observation in added]
        few = len(added) <= _FEW
        self._rows[known:total] = self.rows_of(configurations) if few else self.encoding.encode_all(configurations)
        self._features[known:total] = self.encoding.features(self._rows[known:total])
        self._losses[known:total] = [_loss(observation, self._goal) for observation in added]
        for place, observation in enumerate(added, start=known):
            if observation.finished and observation.curve:
                losses = np.array([_loss_of(value, self._goal) for value in observation.curve])
                self._curves.append((place, np.minimum.accumulate(losses)))
            elif not observation.finished and not observation.infeasible:
                self._stopped.append(place)
        self._observations.extend(added)

    def _grow(self, capacity: int) -> None:
        known = len(self)
        for name in ("_rows", "_features", "_losses"):
            old: Array = getattr(self, name)
            grown = np.empty((capacity, *old.shape[1:]))
            grown[:known] = old[:known]
            setattr(self, name, grown)


def _loss(observation: Observation, goal: Goal) -> float:
    return math.inf if observation.infeasible else _loss_of(observation.value, goal)


def _loss_of(value: float | None, goal: Goal) -> float:
    if value is None or not math.isfinite(value):
        return math.inf
    return min(max(-goal.sign * value, -_LARGEST_LOSS), _LARGEST_LOSS)


class Memory:
    """A cache for one experiment in one process, for one thread at a time. Losing it costs time, nothing else."""

    def __init__(self) -> None:
        self._problem: Problem | None = None
        self._history: History | None = None
        self._kept: dict[object, object] = {}
        self._current: dict[object, object] = {}

    def history(self, problem: Problem, observations: Sequence[Observation]) -> History:
        """The observations as arrays; starts anew when they do not continue those seen before."""
        fits = self._history is not None and self._problem == problem and self._history.continued_by(observations)
        if not fits or self._history is None:
            self._history = History(problem)
            self._kept.clear()
            self._current.clear()
        elif len(observations) > len(self._history):
            self._current.clear()
        self._problem = problem
        self._history.extend(observations)
        return self._history

    def recall(self, key: object, compute: Callable[[], _T]) -> _T:
        """What `compute` gives, computed once a key; the key must say everything that the result depends on."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]  # type: ignore[return-value]

    def recall_until_results(self, key: object, compute: Callable[[], _T]) -> _T:
        """As `recall`, for what depends on all results so far: it is forgotten when there are more."""
        if key not in self._current:
            self._current[key] = compute()
        return self._current[key]  # type: ignore[return-value]
