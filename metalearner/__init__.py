"""What proposes: pure functions over values."""

from metalearner.memory import Memory
from metalearner.proposing import propose
from metalearner.values import Effort, Observation, Problem, Proposal, ProposerName

__all__ = ["Effort", "Memory", "Observation", "Problem", "Proposal", "ProposerName", "propose"]
