"""A quasi-random sequence in any dimension, without any library."""

from __future__ import annotations

import random
from functools import lru_cache


def r_sequence(dimensions: int, *, start: int, count: int, seed: int) -> list[list[float]]:
    """Points `start` … `start + count - 1` of the additive recurrence R_d, shifted by a seeded random vector.

    x_n = (shift + n * alpha) mod 1 with alpha_j = phi_d^-(j+1), phi_d the positive root of x^(d+1) = x + 1
    (M. Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences", 2018). Each point: (dimensions,), in [0, 1).
    """
    alphas = _alphas(dimensions)
    generator = random.Random(seed)  # noqa: S311
    shift = [generator.random() for _ in range(dimensions)]
    return [
        [(offset + number * alpha) % 1.0 for offset, alpha in zip(shift, alphas, strict=True)]
        for number in range(start, start + count)
    ]


@lru_cache(maxsize=256)
def _alphas(dimensions: int) -> tuple[float, ...]:
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    return tuple((1.0 / root) ** (position + 1) % 1.0 for position in range(dimensions))
