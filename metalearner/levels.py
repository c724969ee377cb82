"""Where a result stands among everything that histories measured of the same metric.

Histories that are wrong about a task all at once agree with each other, and the first trials that they advise are all
thought good, so that no order among those can tell. But what is good elsewhere should not be among the worst that was
ever measured. That says something only of metrics whose values compare between tasks, as shares of right answers do
and errors in units of their own do not: where the good values of most histories do not stand among the better ones of
the others, there are no levels.

Symbols: H histories, n results, Q quantiles of each history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metalearner.arrays import Array

_QUANTILES = 33
_GOOD = 0.2
"""The share of a history's trials that are no worse than its good ones."""
_LEAST_HISTORIES = 4
_MOST = 0.8
"""So many of the histories have good values that stand among the others' no worse than `fair`."""
_LEAST_FAIR, _MOST_FAIR = 0.3, 0.65


@dataclass(frozen=True, eq=False)
class Levels:
    """`losses`: of all histories, each with an equal share: (H * Q,), ascending, infinite where a trial diverged.

    `fair`: the standing up to which the good values of a task are to be expected.
    """

    losses: Array
    fair: float

    def standing(self, losses: Array) -> Array:
        """The share of all that is better than each loss, ties by half: (n,) -> (n,)."""
        return standing(self.losses, losses)


def levels(histories: Sequence[Array]) -> Levels | None:
    """From the losses of each history; None where they are too few, or do not compare."""
    if len(histories) < _LEAST_HISTORIES:
        return None
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    each = np.array([_quantiles(losses, places) for losses in histories])  # (H, Q)
    together = np.sort(each, axis=None)
    good = np.array([_quantiles(losses, np.array([_GOOD]))[0] for losses in histories])
    own = np.array([standing(np.sort(row), one[None])[0] for row, one in zip(each, good, strict=True)])
    among_others = (len(each) * standing(together, good) - own) / (len(each) - 1)
    fair = float(np.quantile(among_others, _MOST))
    return Levels(together, max(fair, _LEAST_FAIR)) if fair <= _MOST_FAIR else None


def standing(ascending: Array, losses: Array) -> Array:
    """The share of `ascending` that is less than each loss, ties by half."""
    below, up_to = (np.searchsorted(ascending, losses, side=side) for side in ("left", "right"))
    return np.asarray(0.5 * (below + up_to) / len(ascending))


def _quantiles(losses: Array, shares: Array) -> Array:
    """By rank, without interpolation, because losses may be infinite."""
    ascending = np.sort(losses)
    return np.asarray(ascending[np.minimum((shares * len(ascending)).astype(np.intp), len(ascending) - 1)])
