"""Maximising an acquisition over a typed space: global samples, perturbed incumbents, then shrinking local search.

Real and discrete dimensions are searched in the same way and at once: every candidate is a row that a trial could run,
so what is scored is what is proposed. Symbols: D dimensions, m candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from metalearner.arrays import Array
from metalearner.encoding import Encoding

Acquisition: TypeAlias = Callable[[Array], Array]
"""Rows (m, D) -> values (m,), more is better."""

_HOPS: Array = np.array([-2.0] * 3 + [-1.0] * 7 + [1.0] * 7 + [2.0] * 3)
"""By how many levels an ordered value moves: one more often than two."""


@dataclass(frozen=True)
class SearchPlan:
    """How many candidates of each kind are looked at."""

    uniform: int
    around_incumbents: int
    starts: int
    """How many of the best candidates are refined."""
    rounds: int
    neighbours: int
    """Candidates a start and round."""


def search(
    acquisition: Acquisition, encoding: Encoding, incumbents: Array, generator: np.random.Generator, plan: SearchPlan
) -> tuple[Array, Array]:
    """Rows and their acquisition values, the best first: (m, D), (m,). `incumbents`: (k, D), the best first."""
    pool = [generator.random((plan.uniform, encoding.width))]
    if len(incumbents):
        picks = generator.integers(len(incumbents), size=plan.around_incumbents)
        pool.append(_perturbed(encoding, incumbents[picks], _scales(generator, plan.around_incumbents), generator))
    rows = encoding.rows(np.concatenate(pool))
    values = acquisition(rows)
    best = np.argsort(-values, kind="stable")[: plan.starts]
    starts, heights = rows[best], values[best]
    kept_rows, kept_values = [rows], [values]
    for step in range(plan.rounds):
        scale = 0.1 * 0.35**step
        around = np.repeat(starts, plan.neighbours, axis=0)
        scales = np.full(len(around), scale)
        rows = encoding.rows(_perturbed(encoding, around, scales, generator))
        values = acquisition(rows)
        kept_rows.append(rows)
        kept_values.append(values)
        leaders = values.reshape(len(starts), -1).argmax(1) + np.arange(len(starts)) * plan.neighbours
        better = values[leaders] > heights
        starts = np.where(better[:, None], rows[leaders], starts)
        heights = np.where(better, values[leaders], heights)
    rows, values = np.concatenate(kept_rows), np.concatenate(kept_values)
    order = np.argsort(-values, kind="stable")
    return rows[order], values[order]


def _scales(generator: np.random.Generator, count: int) -> Array:
    """Step sizes from 0.003 to 0.3 of the range, as many small as large: (count,)."""
    return np.exp(generator.uniform(np.log(0.003), np.log(0.3), size=count))


def _perturbed(encoding: Encoding, rows: Array, scales: Array, generator: np.random.Generator) -> Array:
    """Each row with some dimensions moved: (m, D) -> (m, D), not yet snapped. `scales`: (m,)."""
    count, width = rows.shape
    chance = min(1.0, 2.0 / width) if width > 2 else 0.7
    # Some candidates move in one dimension or two, others in all of them.
    moved = generator.random((count, width)) < np.where(generator.random((count, 1)) < 0.5, chance, 1.0)
    moved[np.arange(count), generator.integers(width, size=count)] = True
    origin = np.where(np.isnan(rows), generator.random((count, width)), rows)
    step = scales[:, None] * generator.standard_normal((count, width))
    result = origin + np.where(moved, step, 0.0)
    for j, dimension in enumerate(encoding.dimensions):
        if not dimension.levels:
            continue
        here = moved[:, j] & (generator.random(count) < max(0.5, 1.0 / width))
        if dimension.unordered:
            result[:, j] = np.where(here, generator.random(count), origin[:, j])
        else:
            hop = _HOPS[generator.integers(len(_HOPS), size=count)] / dimension.levels
            result[:, j] = np.where(
                here, origin[:, j] + np.where(np.abs(step[:, j]) > np.abs(hop), step[:, j], hop), origin[:, j]
            )
    # Mirrored at the walls, so that they attract no more than they should.
    result = np.abs(result)
    return np.asarray(np.clip(np.where(result > 1.0, 2.0 - result, result), 0.0, 1.0))
