"""The quasi-random start: one scrambled Sobol sequence for each experiment, read by index."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from metalearner.arrays import Array

_BLOCK = 256


def point(dimensions: int, seed: int, index: int) -> Array:
    """Point number `index` of the sequence that belongs to `seed`: (dimensions,), in [0, 1)."""
    block, position = divmod(index, _BLOCK)
    return np.array(_block(dimensions, seed, block)[position])


@lru_cache(maxsize=64)
def _block(dimensions: int, seed: int, block: int) -> Array:
    from scipy.stats import qmc  # as long as numpy, scipy's other parts and numba together

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng([seed % 2**63, 0x50B01]))
    if block:
        sequence.fast_forward(block * _BLOCK)
    return np.asarray(sequence.random(_BLOCK))
