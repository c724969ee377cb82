"""The tuning job that both services get: five parameters, a loss that costs nothing, five epochs to report."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Configuration, Space

EPOCHS = 5
PARAMETERS: list[JsonValue] = [
    {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1.0, "log": True},
    {"name": "weight_decay", "type": "float", "low": 1e-6, "high": 0.1, "log": True},
    {"name": "dropout", "type": "float", "low": 0.0, "high": 0.6},
    {"name": "width", "type": "int", "low": 16, "high": 512, "log": True},
    {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam", "adamw"]},
]
_OPTIMIZER_LOSS = {"sgd": 0.10, "adam": 0.03, "adamw": 0.0}


# What every trial reports. All alike, so that no stopping policy ends any trial early, and all trials have one length;
# worse than any final loss, so that the models learn from those alone.
REPORTED = tuple(10.0 + 1.0 / epoch for epoch in range(1, EPOCHS + 1))


@dataclass(frozen=True)
class PastTrial:
    """One trial of the history that an experiment begins with."""

    configuration: Configuration
    loss: float


def past_trials(count: int) -> Iterator[PastTrial]:
    """The same random configurations whoever asks."""
    space = Space.from_json(PARAMETERS)
    generator = random.Random(count)
    for _ in range(count):
        configuration = space.from_unit([generator.random() for _ in range(space.dimensions)])
        yield PastTrial(configuration, final_loss(configuration))


def final_loss(hyperparameters: JsonObject) -> float:
    """What a trial with these hyperparameters tells at its end; less is better."""
    return (
        (math.log10(_number(hyperparameters["learning_rate"])) + 2.5) ** 2 / 6
        + (math.log10(_number(hyperparameters["weight_decay"])) + 3.0) ** 2 / 40
        + (_number(hyperparameters["dropout"]) - 0.2) ** 2
        + (math.log2(_number(hyperparameters["width"])) - 7.5) ** 2 / 30
        + _OPTIMIZER_LOSS[str(hyperparameters["optimizer"])]
    )


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
