"""Maximising an acquisition over a typed space: global samples, perturbed incumbents, then shrinking local search.

Real and discrete dimensions are searched in the same way and at once: every candidate is a row that a trial could run,
so what is scored is what is proposed. Symbols: D dimensions, m candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from metalearner.arrays import Array, Mask
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
    around, local = plan.around_incumbents if len(incumbents) else 0, plan.starts * plan.neighbours
    # Step sizes from 0.003 to 0.3 of the range around incumbents, as many small as large; then less each round.
    sizes = np.exp(generator.uniform(np.log(0.003), np.log(0.3), size=around))
    shrinking = np.repeat(0.1 * 0.35 ** np.arange(plan.rounds), local)
    moves = _Moves.drawn(encoding, np.concatenate([sizes, shrinking]), generator)
    pool = [generator.random((plan.uniform, encoding.width))]
    if around:
        pool.append(moves.part(0, around).of(incumbents[generator.integers(len(incumbents), size=around)]))
    rows = encoding.rows(np.concatenate(pool))
    values = acquisition(rows)
    best = np.argsort(-values, kind="stable")[: plan.starts]
    starts, heights = rows[best], values[best]
    kept_rows, kept_values = [rows], [values]
    for step in range(plan.rounds):
        near = moves.part(around + step * local, local)
        rows = encoding.rows(near.of(np.repeat(starts, plan.neighbours, axis=0)))
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


@dataclass(frozen=True)
class _Moves:
    """What m candidates change of the rows that they start from, drawn for all of them at once."""

    steps: Array  # (m, D), what is added
    anew: Mask  # (m, D), which values are taken from `places` instead
    places: Array  # (m, D)

    @classmethod
    def drawn(cls, encoding: Encoding, scales: Array, generator: np.random.Generator) -> _Moves:
        """Moves of some dimensions by steps of about these sizes (m,)."""
        count, width = len(scales), encoding.width
        chance = min(1.0, 2.0 / width) if width > 2 else 0.7
        spread, turns, places = generator.random((3, count, width))
        # Some candidates move in one dimension or two, others in all of them.
        moved = spread < np.where(generator.random((count, 1)) < 0.5, chance, 1.0)
        moved[np.arange(count), generator.integers(width, size=count)] = True
        steps = scales[:, None] * generator.standard_normal((count, width))
        steps[~moved] = 0.0
        # Discrete values stay more often, and move by a level at least.
        moved &= turns < max(0.5, 1.0 / width)
        ordered = encoding.ordered
        if len(ordered):
            part = steps[:, ordered]
            hops = _HOPS[generator.integers(len(_HOPS), size=part.shape)] / encoding.levels[ordered]
            part = np.where(np.abs(part) > np.abs(hops), part, hops)
            steps[:, ordered] = np.where(moved[:, ordered], part, 0.0)
        moved &= encoding.unordered
        steps[:, encoding.unordered] = 0.0
        return cls(steps, moved, places)

    def part(self, start: int, count: int) -> _Moves:
        """Those of `count` candidates."""
        chosen = slice(start, start + count)
        return _Moves(self.steps[chosen], self.anew[chosen], self.places[chosen])

    def of(self, rows: Array) -> Array:
        """The rows (m, D), moved; not yet snapped. What was inactive gets a value anywhere."""
        moved = np.where(self.anew | np.isnan(rows), self.places, rows + self.steps)
        # Mirrored at the walls, so that they attract no more than they should.
        moved = np.abs(moved, out=moved)
        return np.asarray(np.clip(np.minimum(moved, 2.0 - moved), 0.0, 1.0))
