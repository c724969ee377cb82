"""Results that were told twice: how likely a configuration brings nothing new because it is in effect one that ran.

A user may round, clip or look up what is proposed, a parameter may not matter, a metric may be coarse: then neighbours
have results that are equal to the last digit. A process knows no such steps. It goes on seeing improvement beside the
best result, where every trial tells the same number again.

Symbols: n results, m candidates, P feature columns, d a distance to the nearest result. Of results, each with its
nearest neighbour, T(d) counts those equal to theirs at d or farther, N(d) those different from theirs at d or nearer.
Sameness falls with distance, so both speak of a candidate at d, the first for the same number again:
    p(d) = T(d) / (T(d) + N(d) + 1)
It is 0 where no two neighbours are equal, so nothing changes there. Expected improvement is multiplied by 1 - p.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metalearner import compiled_process as loops
from metalearner.arrays import Array


@dataclass(frozen=True)
class Sameness:
    """What n results tell of it."""

    features: Array  # (n, P)
    equal: Array  # ascending: how far nearest neighbours with equal results are apart
    different: Array  # ascending: the same of different results

    def log_news(self, features: Array, waiting: Array | None = None) -> Array:
        """log(1 - p): (m, P) -> (m,). `waiting` (k, P): trials under way are neighbours, too."""
        known = self.features if waiting is None else np.concatenate([self.features, waiting])
        distances, _ = loops.nearest(features, known, False)
        equal = len(self.equal) - np.searchsorted(self.equal, distances, side="left")
        different = np.searchsorted(self.different, distances, side="right")
        return np.asarray(np.log1p(different) - np.log1p(equal + different))


def sameness(features: Array, losses: Array) -> Sameness | None:
    """What results with `losses` (n,) at `features` (n, P) tell; None where no neighbours have the same."""
    feasible = np.isfinite(losses)
    losses = losses[feasible]
    if len(losses) < 2 or np.diff(np.sort(losses)).min() > 0.0:
        return None
    points = features[feasible]
    distances, nearest = loops.nearest(points, points, True)
    equal = losses == losses[nearest]
    if not equal.any():
        return None
    return Sameness(features, np.sort(distances[equal]), np.sort(distances[~equal]))
