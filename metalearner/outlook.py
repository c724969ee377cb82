"""What a trial that was stopped early would have come to.

Its best so far says less than a finished trial's: read as a result, it makes a setting look bad because the bar was
high, and the next trial near it is stopped as well. So the finished trials tell: the order in which trials stand at an
epoch is taken to be the order in which they end, and the k-th of the finished at that epoch leads to the k-th result.

Symbols: F finished trials, R epochs, n stopped trials. A loss is turned so that less is better.
"""

from __future__ import annotations

import numpy as np

from metalearner.arrays import Array, Index


def outlook(finished: Array, epochs: Index, losses: Array) -> Array:
    """The final losses expected of trials stopped after `epochs` (n,), from 1, with best `losses` (n,) so far: (n,).

    `finished`: the least loss up to each epoch of each finished trial, (F, R), NaN where it is not known. Between the
    finished trials the map is linear, beyond them a trial gains what the nearest one did. Where no finished trial is
    known at an epoch, the loss stands for itself.
    """
    expected = losses.copy()
    for epoch in np.unique(epochs):
        here = np.flatnonzero((epochs == epoch) & np.isfinite(losses))
        if not 0 < epoch <= finished.shape[1] or not len(here):
            continue
        known = np.isfinite(finished[:, epoch - 1]) & np.isfinite(finished[:, -1])
        if known.any():
            expected[here] = _mapped(finished[known, epoch - 1], finished[known, -1], losses[here])
    return expected


def _mapped(then: Array, at_end: Array, losses: Array) -> Array:
    """Losses at an epoch -> losses at the end, order for order: (F,), (F,), (n,) -> (n,)."""
    places, inverse, counts = np.unique(then, return_inverse=True, return_counts=True)
    ends = np.bincount(inverse[np.argsort(then, kind="stable")], np.sort(at_end)) / counts
    inside = np.interp(losses, places, ends)
    beyond = np.clip(losses, places[0], places[-1])
    return np.asarray(inside + (losses - beyond))
