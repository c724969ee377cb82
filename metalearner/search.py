"""Maximising an acquisition over a typed space: global samples, perturbed incumbents, then shrinking local search.

Real and discrete dimensions are searched in the same way and at once: every candidate is a row that a trial could run,
so what is scored is what is proposed. Some candidates move in one dimension or two, others in all of them. Discrete
values stay more often, and move by a level at least; what was inactive gets a value anywhere. Symbols: D dimensions, m
candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from metalearner import compiled_rows as loops
from metalearner.arrays import Array, Index
from metalearner.encoding import Encoding

Acquisition: TypeAlias = Callable[[Array], Array]
"""Rows (m, D) -> values (m,), more is better."""

_HOPS: Index = np.array([-2] * 3 + [-1] * 7 + [1] * 7 + [2] * 3)
"""By how many levels an ordered value moves: one more often than two."""
_LEAST, _MOST = 0.003, 0.3
"""Steps from incumbents, in parts of the range: as many small as large."""
_FIRST, _SHRINKING = 0.1, 0.35
"""Steps of the first round of refinement, and what is left of them in each further one."""


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
    table, around, local = encoding.table, plan.around_incumbents, plan.starts * plan.neighbours
    around = around if len(incumbents) else 0
    points = generator.random((plan.uniform, encoding.width))
    count = around + plan.rounds * local
    draws = loops.Draws(
        generator.random((count, encoding.width + 3)), generator.standard_normal((count, encoding.width))
    )
    rows = loops.pool(table, points, incumbents, draws, around, _LEAST, _MOST, _HOPS)
    values = acquisition(rows)
    best = np.argsort(-values, kind="stable")[: plan.starts]
    starts, heights = rows[best], values[best]
    kept_rows, kept_values = [rows], [values]
    for step in range(plan.rounds):
        first, size = around + step * local, _FIRST * _SHRINKING**step
        rows = loops.near(table, starts, plan.neighbours, draws, first, size, _HOPS)
        values = acquisition(rows)
        loops.climb(starts, heights, rows, values)
        kept_rows.append(rows)
        kept_values.append(values)
    rows, values = np.concatenate(kept_rows), np.concatenate(kept_values)
    order = np.argsort(-values, kind="stable")
    return rows[order], values[order]
