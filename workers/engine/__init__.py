"""What trains: many trials of one network on one data set, on one device.

Values in, values out: no queue, no database, no files. `Engine` is the door; see `workers.engine.engine`.
"""

from workers.engine.checkpoint import Checkpoint, InvalidCheckpoint, Position
from workers.engine.cost import Cost, cost
from workers.engine.device import Precision, choose_device
from workers.engine.engine import Engine
from workers.engine.evaluation import GOALS, METRICS
from workers.engine.trial import EpochReport, FailureKind, TrialSpec, trial_spec

__all__ = [
    "GOALS",
    "METRICS",
    "Checkpoint",
    "Cost",
    "Engine",
    "EpochReport",
    "FailureKind",
    "InvalidCheckpoint",
    "Position",
    "Precision",
    "TrialSpec",
    "choose_device",
    "cost",
    "trial_spec",
]
