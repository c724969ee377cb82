"""What the meta-learner's worker must know of an experiment, and what changed since it last looked."""

from __future__ import annotations

from dataclasses import dataclass

from foretune.errors import NotFound
from foretune.json_types import JsonObject, JsonValue
from foretune.states import TrialState
from service.db import networks as network_rows
from service.db import stopping as stopping_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.session import Transaction
from service.db.trials import SeenTrial, StoredTrial

__all__ = [
    "Changes",
    "CurvePoint",
    "SeenTrial",
    "StoredExperiment",
    "StoredTrial",
    "ToldEnding",
    "changes_since",
    "store_thresholds",
]


@dataclass(frozen=True)
class CurvePoint:
    trial_id: str
    epoch: int
    value: float | None


@dataclass(frozen=True)
class Changes:
    """What changed after the places in the log that the caller had read to, and the new places."""

    experiment: StoredExperiment
    trials: list[SeenTrial]
    points: list[CurvePoint]
    trials_seq: int
    points_seq: int


@dataclass(frozen=True)
class ToldEnding:
    """How a trial ends whose client asks for the next one in the same call: told before it is written."""

    trial_id: str
    state: TrialState
    best_value: float | None

    def to_json(self) -> JsonObject:
        return {"trial": self.trial_id, "state": self.state.value, "best_value": self.best_value}

    @classmethod
    def from_json(cls, told: JsonValue) -> ToldEnding:
        """Raises KeyError, TypeError or ValueError for what is none."""
        if not isinstance(told, dict):
            raise TypeError("not an object")
        best = told["best_value"]
        return cls(str(told["trial"]), TrialState(str(told["state"])), None if best is None else float(str(best)))


def changes_since(tx: Transaction, experiment_id: str, trials_seq: int, points_seq: int | None) -> Changes:
    """Raises NotFound when the experiment was deleted. `points_seq` None: the curves are not wanted.

    The ledger's lock lets transactions commit in the order of their event numbers: one statement sees all changes up
    to some number and none above it.
    """
    found = trial_rows.changed_since(tx, experiment_id, trials_seq)
    if found is None:
        raise NotFound(f"there is no experiment {experiment_id!r}")
    experiment, trials = found
    points = [] if points_seq is None else trial_rows.curve_points_since(tx, experiment_id, points_seq)
    return Changes(
        experiment,
        trials,
        [CurvePoint(trial_id, epoch, value) for trial_id, epoch, value, _ in points],
        max((trial.changed_seq for trial in trials), default=trials_seq),
        max((seq for *_, seq in points), default=points_seq or 0),
    )


def network_defaults(tx: Transaction, network: str | None) -> JsonObject:
    """What an expert would try first on this network; empty when nothing is known."""
    if network is None:
        return {}
    described = network_rows.find(tx, network)
    defaults = described.get("defaults", {}) if described else {}
    return defaults if isinstance(defaults, dict) else {}


def store_thresholds(tx: Transaction, experiment_id: str, seq: int, thresholds: dict[int, float]) -> None:
    stopping_rows.store(tx, experiment_id, seq, thresholds)


def is_result(trial: SeenTrial) -> bool:
    """Whether the trial says something about its configuration."""
    return trial.state in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.INFEASIBLE)
