"""A metric space of tasks: near means that the same settings work, so that histories of near tasks count most.

An encoder (`metalearner.task_encoder`) maps what is known of a task to a point; training (`metalearner.task_training`)
pulls together tasks whose response surfaces rank the same settings alike. What a distance is worth is calibrated on
families of tasks that were left out: the rank correlation to expect at it, relative to that of any two tasks of the
kind. Beyond the calibrated distances every history counts the same, which is the portfolio without weights.

This module needs numpy alone: proposals import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors

from metalearner.arrays import Array
from metalearner.histories import Task
from metalearner.likeness import ALMOST, TaskTable
from metalearner.task_encoder import LAYERS, Encoder, Vocabulary

LEAST_HISTORIES = 30
"""With fewer histories nothing is learned: the portfolio stands as it is."""
FORMAT = 1
_HEADER = "task_space"
_LEAST = 0.1
_MOST = 0.95
"""The weight of a task that is not known to be the same."""


@dataclass(frozen=True)
class Calibration:
    """What distances are worth. `excess` (K,): expected rank correlation above the usual, at `distances` (K,).

    Distances ascend and the excess does not; beyond the last it stays what it is there.
    """

    distances: Array
    excess: Array
    usual: Mapping[str, float]
    """The mean rank correlation of any two tasks, by network."""
    radius: float
    """Up to here a task is more alike than usual; 0 where no distance says anything."""

    def between_any(self, network: str | None) -> float:
        """The rank correlation of any two tasks of a network."""
        return self.usual.get(network or "", float(np.mean(list(self.usual.values()))))

    def expected(self, distances: Array, network: str | None) -> Array:
        """The rank correlation to expect at distances, any shape."""
        return np.asarray(self.between_any(network) + np.interp(distances, self.distances, self.excess))


@dataclass(frozen=True)
class TaskSpace:
    """A trained space. Equal arguments give equal answers."""

    encoder: Encoder
    calibration: Calibration

    def near(self, distances: Array) -> bool:
        """Whether any of the distances lies within what was calibrated to say something."""
        return bool((distances <= self.calibration.radius).any())

    @cached_property
    def dimensions(self) -> int:
        """Of the space."""
        skip = self.encoder.layers["skip"]
        return int(skip.shape[0] * skip.shape[2])

    def to_bytes(self) -> bytes:
        """Safetensors with one JSON header; equal spaces give equal bytes."""
        words, calibration = self.encoder.words, self.calibration
        header = {
            "format": FORMAT,
            "numbers": words.numbers,
            "words": words.words,
            "usual": dict(sorted(calibration.usual.items())),
            "radius": calibration.radius,
        }
        tensors = {name: np.ascontiguousarray(self.encoder.layers[name]) for name in LAYERS}
        tensors |= {"means": words.means, "deviations": words.deviations}
        tensors |= {"distances": calibration.distances, "excess": calibration.excess}
        return encode_tensors(tensors, metadata={_HEADER: json.dumps(header, sort_keys=True)})

    @classmethod
    def from_bytes(cls, content: bytes) -> TaskSpace:
        """What `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            length = int.from_bytes(content[:8], "little")
            header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])
            tensors = decode_tensors(content)
            if header["format"] != FORMAT:
                raise ValueError(f"a space of tasks in format {header['format']!r}; this version reads {FORMAT}")
            words = Vocabulary(
                tuple(header["numbers"]),
                tensors["means"],
                tensors["deviations"],
                tuple((name, word) for name, word in header["words"]),
            )
            return cls(
                Encoder(words, {name: tensors[name] for name in LAYERS}),
                Calibration(tensors["distances"], tensors["excess"], header["usual"], float(header["radius"])),
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a space of tasks: {error}") from error


class SpaceLikeness:
    """A space as a way to compare tasks (`metalearner.likeness.Likeness`).

    Points of the others are kept from call to call while `others` stays the same object. Use from one thread.
    """

    def __init__(self, space: TaskSpace) -> None:
        self.space = space
        self._table = TaskTable(())
        self._points: dict[str | None, Array] = {}

    def distances(self, task: Task, others: Sequence[Task]) -> Array:
        """How far each of `others` (H) is, as the network of `task` sees it: (H,); NaN where one of both says nothing
        that the space reads.
        """
        if self._table.tasks is not others:
            self._table, self._points = TaskTable(others), {}
        if task.network not in self._points:
            self._points[task.network] = self._told([replace(other, network=task.network) for other in others])
        (own,) = self._told([task])
        return np.asarray(np.sqrt(((self._points[task.network] - own) ** 2).sum(1)))

    def weights(self, task: Task, others: Sequence[Task]) -> Array:
        """1 for the same data and network and 0 for another kind of task; all the same where nobody is near: (H,)."""
        distances, calibration = self.distances(task, others), self.space.calibration
        usual = calibration.between_any(task.network)
        near = np.full(len(others), usual)
        if self.space.near(distances):
            near = np.where(np.isnan(distances), usual, calibration.expected(distances, task.network))
        return self._table.similarities(task, ALMOST * np.clip(near, _LEAST, _MOST))

    def _told(self, tasks: Sequence[Task]) -> Array:
        """Points (B, dimensions), NaN for tasks that are not described."""
        points = self.space.encoder.points(tasks)
        points[[not self.space.encoder.words.reads(task) for task in tasks]] = np.nan
        return points
