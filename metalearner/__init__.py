"""What proposes: pure functions over values. No I/O, no service, no torch."""

from metalearner import halving
from metalearner.curves import Curves
from metalearner.fitted import FittedModel
from metalearner.fitting import fit
from metalearner.foresight import Foreseen, foresee
from metalearner.hearing import listen
from metalearner.histories import Task, TaskHistory
from metalearner.informing import informed
from metalearner.knowledge import Knowledge
from metalearner.likeness import FeatureLikeness, Likeness
from metalearner.memory import Memory
from metalearner.portfolio import build as build_portfolio
from metalearner.prior_mean import PriorMean, known_mean
from metalearner.proposing import propose, trust
from metalearner.recommending import recommend
from metalearner.stopping import thresholds
from metalearner.task_space import SpaceLikeness, TaskSpace
from metalearner.values import (
    Confidence,
    Effort,
    Evidence,
    Observation,
    PortfolioItem,
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
    "Curves",
    "Effort",
    "Evidence",
    "FeatureLikeness",
    "FittedModel",
    "Foreseen",
    "Knowledge",
    "Likeness",
    "Memory",
    "Observation",
    "PortfolioItem",
    "Prediction",
    "PriorMean",
    "Problem",
    "Proposal",
    "ProposerName",
    "Recommendation",
    "Recommendations",
    "SpaceLikeness",
    "StoppingPolicy",
    "Task",
    "TaskHistory",
    "TaskSpace",
    "build_portfolio",
    "fit",
    "foresee",
    "halving",
    "informed",
    "known_mean",
    "listen",
    "propose",
    "recommend",
    "thresholds",
    "trust",
]
