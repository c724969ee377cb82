"""Families of tasks whose best settings depend on one feature and on the sample, among features that say nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretune.metrics import Goal
from foretune.parameters import Float, Int
from foretune.spaces import Space
from metalearner import Task, TaskHistory
from metalearner.task_sample import FEATURE, encode

SPACE = Space.of(
    Float("learning_rate", 1e-5, 1.0, log=True), Int("width", 16, 512, log=True), Float("dropout", 0.0, 0.5)
)
PROBES: NDArray[np.float64] = np.random.default_rng(99).random((24, 3))


def task(number: str, hidden: NDArray[np.float64], generator: np.random.Generator, network: str = "mlp") -> Task:
    """`hidden` (2,): where in the ranges of learning rate and width the best lies, from 0 to 1."""
    elements = generator.normal(size=(48, 8))
    elements[:, 1] += 3.0 * hidden[1] - 1.5
    features: dict[str, float | str] = {f"x{column}": float(generator.normal()) for column in range(6)}
    features |= {"classes": 3.0, "landmark_linear": float(hidden[0] + 0.03 * generator.normal())}
    return Task("val_loss", Goal.MINIMIZE, f"dst_{number}", network, {**features, FEATURE: encode(elements)})


def history(
    number: str, hidden: NDArray[np.float64], generator: np.random.Generator, points: NDArray[np.float64] = PROBES
) -> TaskHistory:
    configurations = [SPACE.from_unit(point) for point in points.tolist()]
    losses = 4.0 * (points[:, 0] - 0.1 - 0.8 * hidden[0]) ** 2 + 2.0 * (points[:, 1] - hidden[1]) ** 2
    losses += 0.02 * generator.normal(size=len(points))
    columns = {name: [one[name] for one in configurations] for name in SPACE.by_name}
    return TaskHistory(f"exp_{number}", task(number, hidden, generator), SPACE, columns, losses.tolist())


def families(count: int, variants: int, seed: int = 0) -> tuple[list[TaskHistory], list[str]]:
    """Histories, and the family of each."""
    generator = np.random.default_rng(seed)
    made, names = [], []
    for family in range(count):
        hidden = generator.random(2)
        for variant in range(variants):
            own = np.clip(hidden + 0.1 * generator.normal(size=2), 0.0, 1.0)
            made.append(history(f"{family}_{variant}", own, generator))
            names.append(f"family {family}")
    return made, names
