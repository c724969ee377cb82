"""The hyperparameters that every network has because every network is trained: optimizer, schedule, batches.

The ranges are those an expert would search for a few dozen epochs on data sets that fit one machine. One learning
rate serves all optimizers, so its range spans Adam's 1e-4 to the 1 that SGD sometimes wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from foretune.json_types import JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.schedules import ScheduleShape
from foretune.spaces import AnyParameter

OptimizerName: TypeAlias = Literal["sgd", "adam", "adamw"]
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adam", "adamw")

TRAINING_DEFAULTS: Mapping[str, JsonValue] = {
    "learning_rate": 3e-3,
    "optimizer": "adamw",
    "momentum": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 1e-2,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "gradient_clip": 0.0,
    "context_length": 64,
    "lr_schedule": ScheduleShape(0.05, 0.2, 1.0, 0.0).to_json(),
}
"""What holds for a parameter that is neither searched nor fixed, unless the network has a default of its own.

`gradient_clip` is the largest global norm of a gradient, 0 for no clipping; `context_length` (tokens) matters for
texts alone, `momentum` for SGD, `beta1`, `beta2` and `epsilon` for Adam and AdamW.
"""

TRAINING_LIMITS: Mapping[str, AnyParameter] = {
    parameter.name: parameter
    for parameter in (
        Float("learning_rate", 1e-12, 1e12),
        Categorical("optimizer", list(OPTIMIZERS)),
        Float("momentum", 0.0, 0.9999),
        Float("beta1", 0.0, 0.9999),
        Float("beta2", 0.0, 0.999999),
        Float("epsilon", 1e-16, 1.0),
        Float("weight_decay", 0.0, 1e3),
        Int("batch_size", 1, 65_536),
        Float("label_smoothing", 0.0, 0.99),
        Float("gradient_clip", 0.0, 1e6),
        Int("context_length", 2, 8_192),
        Schedule("lr_schedule"),
    )
}
"""What each may be at all: wide enough for any experiment, narrow enough that nothing is undefined."""


def training_parameters(
    *, learning_rate: tuple[float, float], batch_sizes: Sequence[int], dropout: float
) -> tuple[AnyParameter, ...]:
    """The searched parameters of training, most important first; the network's own come after them.

    `learning_rate` is its range, `dropout` its highest rate.
    """
    return (
        Float("learning_rate", *learning_rate, log=True, role="learning_rate"),
        Categorical("optimizer", list(OPTIMIZERS), role="optimizer"),
        Float("momentum", 0.0, 0.99, role="momentum", when={"optimizer": ["sgd"]}),
        Float("weight_decay", 1e-6, 0.3, log=True, role="weight_decay"),
        Categorical("batch_size", list(batch_sizes), ordered=True, role="batch_size"),
        Float("dropout", 0.0, dropout, role="dropout"),
        Float("label_smoothing", 0.0, 0.2, role="label_smoothing"),
    )
