"""The encoder of tasks: a data set's sample and what else is known of a task become a point. Inference is numpy alone.

A task is a set of elements x (E, N) (`metalearner.task_sample`) and a vector s (S,) of its features: numbers, put on a
scale and standardised by the histories that the encoder was trained on, 0 where unknown; and words as indicators, the
network among them. Each of M members maps

    z = W3 tanh(W2 [s, mean_e tanh(W1b tanh(W1a x_e))]) + W4 s

and the point is the members' outputs side by side, divided by √M, so that the squared distance of two points is the
mean of the members' squared distances (a deep ensemble). A DeepSet: Zaheer et al. 2017, arXiv 1703.06114.

Symbols: B tasks, E elements, N numbers of an element, S scalars, M members, Z outputs of a member.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metalearner.arrays import Array
from metalearner.histories import Task
from metalearner.likeness import scaled_feature
from metalearner.task_sample import NUMBERS, decode

LAYERS = ("phi_in", "phi_in_bias", "phi_out", "phi_out_bias", "rho_in", "rho_in_bias", "rho_out", "skip")
"""The tensors of the members, each with M as its first axis."""
_SHARED = 0.3
"""A number is read if at least this share of the histories has it."""
_WORD_SEEN = 3
_MAX_WORDS = 40
_CLIP = 4.0
_NETWORK = "network"


@dataclass(frozen=True)
class Vocabulary:
    """Which features are read, and on which scale. `words` are pairs of a feature and one of its values."""

    numbers: tuple[str, ...]
    means: Array  # (numbers,)
    deviations: Array  # (numbers,)
    words: tuple[tuple[str, str], ...]

    @property
    def width(self) -> int:
        """S. The last scalar says whether there is a sample."""
        return len(self.numbers) + len(self.words) + 1

    def reads(self, task: Task) -> bool:
        """Whether the task says anything of itself that is read, but its network."""
        named = any(task.features.get(name) == word for name, word in self.words)
        return named or any(name in task.features for name in self.numbers) or decode(task.features) is not None

    def scalars(self, task: Task) -> Array:
        """(S,): standardised numbers, cut to ±4, and indicators; 0 for what is not known."""
        values = [task.features.get(name) for name in self.numbers]
        known = np.array([isinstance(value, int | float) and math.isfinite(value) for value in values], dtype=bool)
        scaled = [
            scaled_feature(name, value) if isinstance(value, int | float) else 0.0
            for name, value in zip(self.numbers, values, strict=True)
        ]
        numbers = np.where(known, (np.array(scaled) - self.means) / self.deviations, 0.0)
        said = _said(task)
        words = [float(said.get(name) == word) for name, word in self.words]
        return np.concatenate([np.clip(numbers, -_CLIP, _CLIP), words, [float(decode(task.features) is not None)]])


def vocabulary(tasks: Sequence[Task]) -> Vocabulary:
    """What most of these tasks say about themselves, and how it is spread."""
    counts = Counter(name for task in tasks for name, value in task.features.items() if not isinstance(value, str))
    names, means, deviations = [], [], []
    for name in sorted(name for name, count in counts.items() if count >= _SHARED * len(tasks)):
        values = [task.features.get(name) for task in tasks]
        scaled = np.array([scaled_feature(name, v) for v in values if isinstance(v, int | float) and math.isfinite(v)])
        if len(scaled) and scaled.std() > 1e-6:
            names.append(name)
            means.append(float(scaled.mean()))
            deviations.append(float(scaled.std()))
    words = Counter(
        (name, value)
        for task in tasks
        for name, value in _said(task).items()
        if isinstance(value, str) and len(value) <= _MAX_WORDS
    )
    common = [word for word, count in words.items() if _WORD_SEEN <= count < len(tasks)]
    common.sort(key=lambda word: (-words[word], word))
    return Vocabulary(tuple(names), np.array(means), np.array(deviations), tuple(sorted(common[:_MAX_WORDS])))


@dataclass(frozen=True)
class Inputs:
    """Tasks as arrays. `elements` and `present` are 0 where a sample is smaller than the largest."""

    scalars: Array  # (B, S)
    elements: Array  # (B, E, N)
    present: Array  # (B, E)


def inputs(words: Vocabulary, tasks: Sequence[Task]) -> Inputs:
    """What the encoder reads of each task."""
    samples = [decode(task.features) for task in tasks]
    longest = max((len(sample) for sample in samples if sample is not None), default=1)
    elements, present = np.zeros((len(tasks), longest, NUMBERS)), np.zeros((len(tasks), longest))
    for position, sample in enumerate(samples):
        if sample is not None:
            elements[position, : len(sample)], present[position, : len(sample)] = sample, 1.0
    scalars = np.array([words.scalars(task) for task in tasks])
    return Inputs(scalars.reshape(len(tasks), words.width), elements, present)


@dataclass(frozen=True)
class Encoder:
    """A trained encoder: what it reads, and the tensors named in `LAYERS`."""

    words: Vocabulary
    layers: Mapping[str, Array]

    def points(self, tasks: Sequence[Task]) -> Array:
        """Where tasks lie: (B, M * Z)."""
        return forward(self.layers, inputs(self.words, tasks))


def forward(layers: Mapping[str, Array], read: Inputs) -> Array:
    """The module's formula: (B, M * Z). Matrices are (M, from, to)."""
    hidden = np.tanh(read.elements @ layers["phi_in"][:, None] + layers["phi_in_bias"][:, None, None])  # (M, B, E, ·)
    hidden = np.tanh(hidden @ layers["phi_out"][:, None] + layers["phi_out_bias"][:, None, None])
    weights = read.present / np.maximum(read.present.sum(1, keepdims=True), 1.0)  # (B, E)
    pooled = np.einsum("mbek,be->mbk", hidden, weights)
    members = len(pooled)
    both = np.concatenate([np.broadcast_to(read.scalars, (members, *read.scalars.shape)), pooled], axis=2)
    hidden = np.tanh(both @ layers["rho_in"] + layers["rho_in_bias"][:, None])
    points = hidden @ layers["rho_out"] + read.scalars @ layers["skip"]
    width = members * points.shape[2]
    return np.asarray(points.transpose(1, 0, 2).reshape(len(read.scalars), width) / math.sqrt(members))


def _said(task: Task) -> dict[str, float | str]:
    return {**task.features, _NETWORK: task.network or ""}
