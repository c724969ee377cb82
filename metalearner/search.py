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
from metalearner.arrays import Array
from metalearner.encoding import Encoding

Acquisition: TypeAlias = Callable[[Array], Array]
"""Rows (m, D) -> values (m,), more is better."""

_HOPS: Array = np.array([-2.0] * 3 + [-1.0] * 7 + [1.0] * 7 + [2.0] * 3)
"""By how many levels an ordered value moves: one more often than two."""
_LEAST, _MOST = float(np.log(0.003)), float(np.log(0.3))
"""The logarithms of steps from incumbents, in parts of the range: as many small as large."""
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
    table, local = encoding.table, plan.starts * plan.neighbours
    around = plan.around_incumbents if len(incumbents) else 0
    draws = _drawn(encoding, plan, around, generator)
    points = generator.random((plan.uniform, encoding.width))
    chosen = generator.integers(len(incumbents), size=around) if around else np.empty(0, dtype=np.intp)
    rows = loops.pool(table, points, incumbents, chosen, draws)
    values = acquisition(rows)
    best = np.argsort(-values, kind="stable")[: plan.starts]
    starts, heights = rows[best], values[best]
    kept_rows, kept_values = [rows], [values]
    for step in range(plan.rounds):
        rows = loops.near(table, starts, plan.neighbours, draws, around + step * local)
        values = acquisition(rows)
        loops.climb(starts, heights, rows, values)
        kept_rows.append(rows)
        kept_values.append(values)
    rows, values = np.concatenate(kept_rows), np.concatenate(kept_values)
    order = np.argsort(-values, kind="stable")
    return rows[order], values[order]


def _drawn(encoding: Encoding, plan: SearchPlan, around: int, generator: np.random.Generator) -> loops.Draws:
    """For the moves from incumbents, then for those of each round."""
    local, width = plan.starts * plan.neighbours, encoding.width
    sizes = np.empty(around + plan.rounds * local)
    sizes[:around] = np.exp(generator.uniform(_LEAST, _MOST, size=around))
    for step in range(plan.rounds):
        sizes[around + step * local : around + (step + 1) * local] = _FIRST * _SHRINKING**step
    count = len(sizes)
    spread, turns, places = generator.random((3, count, width))
    wide = generator.random(count)
    sure = generator.integers(width, size=count)
    normals = generator.standard_normal((count, width))
    hops = np.zeros((count, width))
    if len(encoding.ordered):
        hops[:, encoding.ordered] = _HOPS[generator.integers(len(_HOPS), size=(count, len(encoding.ordered)))]
    return loops.Draws(sizes, spread, turns, places, wide, sure, normals, hops)
