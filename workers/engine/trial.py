"""What the engine is told about a trial, and what it tells back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from foretune.errors import InvalidConfiguration
from foretune.json_types import JsonValue
from foretune.schedules import LearningRateSchedule, ScheduleShape
from foretune.spaces import Space
from workers.networks import Network


@dataclass(frozen=True)
class TrialSpec:
    """One trial: everything that its curve depends on, besides the network and the data.

    `configuration` may leave parameters out; the network's defaults then apply. The learning rate and its shape are
    taken from `schedule` alone. Equal specs give equal curves. Raises InvalidConfiguration when `max_epochs` < 1.
    """

    trial_id: str
    configuration: Mapping[str, JsonValue]
    schedule: LearningRateSchedule
    max_epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.max_epochs < 1:
            raise InvalidConfiguration(f"max_epochs must be at least 1, not {self.max_epochs}")


class FailureKind(StrEnum):
    DIVERGED = "diverged"
    """The loss became NaN, infinite or absurd: the setting is infeasible."""
    OUT_OF_MEMORY = "out_of_memory"
    """The setting does not fit the device: infeasible here."""
    ERROR = "error"
    """The network raised: a fault of its code, not of the setting."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch of one trial gave.

    `metrics` are finite numbers (see `workers.engine.evaluation.METRICS`); empty after a failure. `seconds` is the
    time the device spent on this epoch, evaluation included. `finished` says that the trial will train no further:
    all its epochs are done, or `failure` (of kind `failure_kind`) says in a sentence why not.
    """

    trial_id: str
    epoch: int
    metrics: Mapping[str, float]
    seconds: float
    failure: str | None = None
    finished: bool = False
    failure_kind: FailureKind | None = None


def trial_spec(
    network: Network,
    trial_id: str,
    configuration: Mapping[str, JsonValue],
    *,
    max_epochs: int,
    seed: int,
    space: Space | None = None,
) -> TrialSpec:
    """The spec of a trial whose hyperparameters come as clients name them, fixed ones included.

    `space` tells the roles of its parameters. Raises InvalidConfiguration or InvalidSchedule.
    """
    values = network.resolve(configuration, space)
    peak = values["learning_rate"]
    if isinstance(peak, bool) or not isinstance(peak, int | float):
        raise InvalidConfiguration(f"learning_rate must be a number, not {peak!r}")
    schedule = LearningRateSchedule(float(peak), ScheduleShape.from_json(values["lr_schedule"]))
    return TrialSpec(trial_id, values, schedule, max_epochs, seed)
