"""Histories of one family of tasks, whole or spoiled in one of the ways in which real ones may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from foretune.metrics import Goal
from foretune.parameters import Float, Int
from foretune.spaces import Configuration, Space
from metalearner import Task, TaskHistory

SPACE = Space.of(
    Float("learning_rate", 1e-5, 1.0, log=True),
    Int("width", 16, 512, log=True),
    Float("dropout", 0.0, 0.5),
    Float("weight_decay", 1e-6, 0.1, log=True),
)
_COUNT = 6
_TRIALS = 40

Spoiled: TypeAlias = Literal[
    "matching", "inverted", "shuffled", "other_family", "one_trial", "all_failed", "constant", "poisoned"
]
KINDS: tuple[Spoiled, ...] = get_args(Spoiled)


def loss(configuration: Configuration, member: int, family: int) -> float:
    """From 0 to about 4; the best settings of a family lie together, each member's a little apart."""
    base = np.random.default_rng([family, 1]).uniform(0.15, 0.85, 4)
    best = base + 0.08 * np.random.default_rng([family, 2, member]).standard_normal(4)
    away = np.array(SPACE.to_unit(configuration)) - best
    return float(away @ (np.array([6.0, 2.0, 1.0, 2.0]) * away))


def histories(kind: Spoiled, family: int = 0) -> list[TaskHistory]:
    """Six of forty trials, of members 1 to 6; member 0 is for whoever learns from them."""
    told = family + 1 if kind == "other_family" else family
    return [_history(kind, member, told) for member in range(1, _COUNT + 1)]


def _history(kind: Spoiled, member: int, family: int) -> TaskHistory:
    generator = np.random.default_rng([3, family, member])
    points = generator.random((1 if kind == "one_trial" else _TRIALS, SPACE.dimensions))
    configurations = [SPACE.from_unit(point) for point in points.tolist()]
    losses = [loss(one, member, family) for one in configurations]
    return TaskHistory(
        f"his_{member}",
        Task("val_loss", Goal.MINIMIZE),
        SPACE,
        {name: [one[name] for one in configurations] for name in SPACE.by_name},
        _spoil(losses, kind, generator),
    )


def _spoil(losses: Sequence[float], kind: Spoiled, generator: np.random.Generator) -> list[float | None]:
    match kind:
        case "inverted":
            order, values = np.argsort(losses), np.sort(losses)[::-1]
            return [float(values[place]) for place in np.argsort(order)]
        case "shuffled":
            return generator.permutation(losses).tolist()
        case "all_failed":
            return [None] * len(losses)
        case "constant":
            return [0.5] * len(losses)
        case "poisoned":
            place = int(generator.integers(len(losses)))
            return [-1e12 if number == place else value for number, value in enumerate(losses)]
        case _:
            return list(losses)
