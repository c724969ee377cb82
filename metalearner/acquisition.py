"""Expected improvement in logarithms, so that it tells candidates apart where it underflows.

log EI = log s + log h(z) with z = (best - mean) / s and h(z) = φ(z) + z Φ(z) (Ament et al. 2023, arXiv 2310.20708).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from metalearner.arrays import Array

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)
_SQRT_HALF_PI = math.sqrt(0.5 * math.pi)


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """How far below `best` a normal outcome is expected to fall: (m,), (m,) -> (m,)."""
    deviation = np.sqrt(variance)
    return np.log(deviation) + log_h((best - mean) / deviation)


def log_h(z: Array) -> Array:
    """log(φ(z) + z Φ(z)) without underflow: (m,) -> (m,)."""
    result = np.empty_like(z)
    usual = z > -1.0
    high = z[usual]
    result[usual] = np.log(np.exp(-0.5 * high**2 - _HALF_LOG_2PI) + high * ndtr(high))
    low = z[~usual]
    # 1 + z Φ/φ, with Φ/φ = sqrt(π/2) erfcx(-z/√2); far out it is 1/z² and the difference would cancel.
    ratio = 1.0 + low * _SQRT_HALF_PI * erfcx(-_SQRT_HALF * low)
    far = low < -1e4
    safe = np.where(far, 1.0 / np.maximum(low**2, 1.0), np.maximum(ratio, 1e-300))
    result[~usual] = -0.5 * low**2 - _HALF_LOG_2PI + np.log(safe)
    return result
