"""Successive halving that waits and judges again: which paused trials go on, and what all trials would come to.

A trial pauses after a first look and goes on, to its end, once it is among the best 1/η of those that came there;
whoever is not yet is asked again whenever more did. So nobody is judged against trials of another age, or against
none, for good: that is the promotion form of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934,
algorithm 2), with one rung. Once there are no new settings to try, one half goes on instead of a third, until the best
are through.

The expert's default waits for nobody: it is likely good, settings with more regularisation look worse early than they
end, and for the first hundred epochs nothing else would be through.

Trials are of different ages, so the surrogate reads none of them as it stands. `foreseen` maps what a trial has to what
it would come to, by what those that are through had at its age.

Symbols: R epochs of a whole trial, η the reduction factor, n trials.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from foretune.spaces import Configuration
from metalearner.arrays import Array
from metalearner.curves import Curves
from metalearner.values import Observation, Problem

_RUNG = 0.1
"""As a share of R: the order after a tenth is nearly that of the end. With a second look a job is worse in its first
hundred epochs and no better later (docs/LOG.md, 2026-11-28).
"""
_REDUCTION, _LAST_REDUCTION = 3, 2
_COMPANY = 6
"""From so many trials on they are compared. Once there are no new settings, those there are."""
LEAST_TRIALS = 2 * _COMPANY
"""Jobs of fewer trials do not pause any: there is little to choose among, and each is there to be seen."""
_SLOPE, _SLOPE_TRIALS = 0.6, 3.0
"""What a difference at the rung is worth at the end, as if so many trials had shown it."""
_LEAST_SPREAD = 1e-12


def rung(max_epochs: int) -> int | None:
    """The epoch at which trials pause; None where a trial has one epoch."""
    epoch = max(1, round(_RUNG * max_epochs))
    return epoch if epoch < max_epochs else None


def bar(problem: Problem, curves: Curves, created: int) -> float:
    """The worst best-so-far at the rung with which a trial goes on, beyond all values where nobody does yet.

    `curves` are those of all trials, of which `created` are there. Both only grow, and so do those who may go on.
    """
    bests, last = curves.bests(_rung(problem)), created >= problem.max_trials
    if not bests or (len(bests) < _COMPANY and not last):
        return problem.goal.sign * math.inf
    going = (len(bests) + 1) // _LAST_REDUCTION if last else len(bests) // _REDUCTION
    return problem.goal.sign * bests[-going]


def worthy(
    problem: Problem, curves: Curves, created: int, paused: Collection[str], default: str | None = None
) -> list[str]:
    """Those of the `paused` trials that go on: the best first.

    `default`: the trial of the expert's default, which goes on before all others, whatever it came to.
    """
    sign, epoch = problem.goal.sign, _rung(problem)
    needed = sign * bar(problem, curves, created)
    ranked = []
    for trial in paused:
        curve = curves.curve(trial)
        merit = sign * curve[epoch - 1] if len(curve) >= epoch else -math.inf
        if trial == default or (len(curve) >= epoch and merit >= needed):
            ranked.append((trial != default, -merit, trial))
    return [trial for *_, trial in sorted(ranked)]


def promising(problem: Problem, curves: Sequence[Sequence[float]]) -> list[int]:
    """Places in `curves` (best values up to each epoch), by what the trials would come to, the best first; without
    those that did not reach the rung.
    """
    places, expected = _expected(problem, curves)
    return [places[one] for one in np.argsort(-problem.goal.sign * expected, kind="stable")]


def foreseen(
    problem: Problem, trials: Sequence[tuple[Configuration, Sequence[float]]]
) -> tuple[list[Observation], list[Configuration]]:
    """What each trial (its configuration, and its best value up to each epoch) would come to, in their order; and the
    configurations of those that did not reach the rung and say nothing yet.
    """
    places, expected = _expected(problem, [curve for _, curve in trials])
    told = [
        Observation(trials[place][0], float(value), epochs=len(trials[place][1]))
        for place, value in zip(places, expected, strict=True)
    ]
    silent = set(range(len(trials))) - set(places)
    return told, [trials[place][0] for place in sorted(silent)]


def _expected(problem: Problem, curves: Sequence[Sequence[float]]) -> tuple[list[int], Array]:
    """The places of the curves that reached the rung, and what each would come to: by all of it that is known, or while
    nobody is through, as it stood at the rung.
    """
    first, end = _rung(problem), problem.max_epochs
    places = [place for place, curve in enumerate(curves) if len(curve) >= first]
    told = [curves[place] for place in places]
    ends = np.array([curve[end - 1] if len(curve) >= end else math.nan for curve in told])
    known = np.isfinite(ends).any()
    epochs = np.array([min(len(curve), end) if known else first for curve in told], dtype=np.intp)
    expected = ends.copy()
    for epoch in set(epochs[np.isnan(ends)].tolist()):
        looks = np.array([curve[epoch - 1] if len(curve) >= epoch else math.nan for curve in told])
        here = epochs == epoch
        expected[here] = extrapolated(looks, ends)[here]
    return places, expected


def _rung(problem: Problem) -> int:
    """The epoch of the first look; where there is but one epoch, the end."""
    return rung(problem.max_epochs) or problem.max_epochs


def extrapolated(looks: Array, ends: Array) -> Array:
    """What trials come to, given looks at one epoch (n,) and ends (n,), NaN where unknown, as the looks tell: (n,).

    By the straight line through those that are through, drawn towards a slope that holds for most. Where nobody is, a
    trial stays as it is: all that can be compared are then equally old.
    """
    through = np.isfinite(looks) & np.isfinite(ends)
    if not through.any():
        return np.where(np.isnan(ends), looks, ends)
    x, y = looks[through], ends[through]
    away = x - x.mean()
    weight = _SLOPE_TRIALS * max(float(np.var(looks[np.isfinite(looks)])), _LEAST_SPREAD)
    slope = (float(away @ (y - y.mean())) + weight * _SLOPE) / (float(away @ away) + weight)
    return np.where(np.isnan(ends), y.mean() + slope * (looks - x.mean()), ends)
