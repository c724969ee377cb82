"""What proposes: pure functions over values. No I/O, no service, no torch."""

from metalearner.memory import Memory
from metalearner.proposing import propose
from metalearner.recommending import recommend
from metalearner.stopping import thresholds
from metalearner.values import (
    Confidence,
    Effort,
    Observation,
    Prediction,
    Problem,
    Proposal,
    ProposerName,
    Recommendation,
    Recommendations,
    StoppingPolicy,
)

__all__ = [
    "Confidence",
    "Effort",
    "Memory",
    "Observation",
    "Prediction",
    "Problem",
    "Proposal",
    "ProposerName",
    "Recommendation",
    "Recommendations",
    "StoppingPolicy",
    "propose",
    "recommend",
    "thresholds",
]
