"""Well-mixed 64-bit numbers that are functions of a stream and of a position: splitmix64 (Steele et al. 2014)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WORD = 0xFFFFFFFFFFFFFFFF
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def at(stream: int, position: int) -> int:
    """The number at `position` of a stream."""
    word = (stream + (position + 1) * _GOLDEN) & _WORD
    word = ((word ^ (word >> 30)) * _MIX[0]) & _WORD
    word = ((word ^ (word >> 27)) * _MIX[1]) & _WORD
    return word ^ (word >> 31)


def run(streams: NDArray[np.uint64], first: int, count: int) -> NDArray[np.uint64]:  # (…) -> (…, count)
    """`at` of the positions from `first` on, of each stream."""
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    word = streams[..., None] + steps
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_MIX[0])
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_MIX[1])
    mixed: NDArray[np.uint64] = word ^ (word >> np.uint64(31))
    return mixed
