"""Expected improvement in logarithms, so that it tells candidates apart where it underflows.

log EI = log s + log h(z) with z = (best - mean) / s and h(z) = φ(z) + z Φ(z) (Ament et al. 2023, arXiv 2310.20708).
"""

from __future__ import annotations

from metalearner import compiled_process as loops
from metalearner.arrays import Array


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """How far below `best` a normal outcome is expected to fall: (m,), (m,) -> (m,)."""
    return loops.log_improvements(mean, variance, best)
