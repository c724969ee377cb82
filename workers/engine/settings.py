"""The hyperparameters of training that the engine itself obeys, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from workers.networks import OptimizerName


@dataclass(frozen=True)
class TrainingSettings:
    """How a trial is trained, besides its learning rate; see `workers.networks.training` for the meanings."""

    optimizer: OptimizerName
    momentum: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    batch_size: int
    label_smoothing: float
    gradient_clip: float
    context_length: int
