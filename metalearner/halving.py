"""Successive halving that waits and judges again: which paused trials go on, and what all trials would come to.

A trial pauses at every rung and goes on once it is among the best 1/η of those that came there; whoever is not yet is
asked again whenever more did. So nobody is judged against trials of another age, or against none, for good: that is
the promotion form of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934, algorithm 2), with two rungs.
Once there are no new settings to try, one half goes on instead of a third, until the best are through.

The expert's default waits for nobody: it is likely good, settings with more regularisation look worse early than they
end, and for the first hundred epochs nothing else would be through.

Trials are paused at different rungs, so the surrogate reads none of them as it stands. `foreseen` maps what a trial had
at one rung to what it would have at the next, by those that were at both, up to the end.

Symbols: R epochs of a whole trial, η the reduction factor, n trials, S = rungs + 1 steps, the last of them the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from foretune.spaces import Configuration
from metalearner.arrays import Array, Mask
from metalearner.curves import Curves
from metalearner.values import Observation, Problem

_RUNGS = (0.1, 0.3)
"""As shares of R: the order after a tenth is nearly that of the end (docs/LOG.md, 2026-11-27)."""
_REDUCTION, _LAST_REDUCTION = 3, 2
_COMPANY = 6
"""From so many trials on a rung compares. Once there are no new settings it compares those there are."""
LEAST_TRIALS = 2 * _COMPANY
"""Jobs of fewer trials do not pause any: there is little to choose among, and each is there to be seen."""
_SLOPE, _SLOPE_TRIALS = 0.6, 3.0
"""What a difference at one rung is worth at the next, as if so many trials had shown it."""
_LEAST_SPREAD = 1e-12


def rungs(max_epochs: int) -> tuple[int, ...]:
    """The epochs at which trials pause, ascending; none where a trial has one epoch."""
    return tuple(sorted({max(1, round(share * max_epochs)) for share in _RUNGS} - {max_epochs}))


def bars(problem: Problem, curves: Curves, created: int) -> dict[int, float]:
    """For each rung the worst best-so-far with which a trial goes on, beyond all values where nobody does yet.

    `curves` are those of all trials, of which `created` are there. Both only grow, and so do those who may go on.
    """
    last = created >= problem.max_trials
    return {rung: problem.goal.sign * _bar(curves.bests(rung), last) for rung in rungs(problem.max_epochs)}


def _bar(bests: Sequence[float], last: bool) -> float:
    """The merit (larger is better) of the last that goes on."""
    count = len(bests)
    if last:
        return bests[-((count + 1) // _LAST_REDUCTION)] if count else math.inf
    return bests[-(count // _REDUCTION)] if count >= _COMPANY else math.inf


def worthy(
    problem: Problem, curves: Curves, created: int, paused: Mapping[str, int], default: str | None = None
) -> list[str]:
    """Those of the `paused` trials, by the epoch at which they pause, that go on: the furthest and best first.

    `default`: the trial of the expert's default, which goes on before all others, whatever it came to.
    """
    sign = problem.goal.sign
    needed = bars(problem, curves, created)
    ranked = []
    for trial, epoch in paused.items():
        curve = curves.curve(trial)
        merit = sign * curve[epoch - 1] if len(curve) >= epoch else -math.inf
        if trial == default or (epoch in needed and len(curve) >= epoch and merit >= sign * needed[epoch]):
            ranked.append((trial != default, -epoch, -merit, trial))
    return [trial for *_, trial in sorted(ranked)]


def promising(problem: Problem, curves: Sequence[Sequence[float]]) -> list[int]:
    """Places in `curves` (best values up to each epoch), by what the trials would come to, the best first; without
    those that reached no rung.
    """
    places, expected = _expected(problem, curves)
    return [places[one] for one in np.argsort(-problem.goal.sign * expected, kind="stable")]


def foreseen(
    problem: Problem, trials: Sequence[tuple[Configuration, Sequence[float]]]
) -> tuple[list[Observation], list[Configuration]]:
    """What each trial (its configuration, and its best value up to each epoch) would come to, in their order; and the
    configurations of those that reached no rung and say nothing yet.
    """
    places, expected = _expected(problem, [curve for _, curve in trials])
    told = [
        Observation(trials[place][0], float(value), epochs=len(trials[place][1]))
        for place, value in zip(places, expected, strict=True)
    ]
    silent = set(range(len(trials))) - set(places)
    return told, [trials[place][0] for place in sorted(silent)]


def _expected(problem: Problem, curves: Sequence[Sequence[float]]) -> tuple[list[int], Array]:
    """The places of the curves that reached a rung, and what each would come to."""
    steps = (*rungs(problem.max_epochs), problem.max_epochs)
    places = [place for place, curve in enumerate(curves) if len(curve) >= steps[0]]
    levels = np.full((len(places), len(steps)), np.nan)
    for line, place in zip(levels, places, strict=True):
        reached = [curves[place][step - 1] for step in steps if len(curves[place]) >= step]
        line[: len(reached)] = reached
    return places, extrapolated(levels)


def extrapolated(levels: Array) -> Array:
    """The last column, where it is not known as the columns before tell: (n, S), NaN from some step on -> (n,).

    From step to step by the straight line through those that are at both, drawn towards a slope that holds for most.
    Where nobody went on, a trial stays as it is: all that can be compared are then equally old.
    """
    expected = levels[:, 0].copy()
    for before, after in zip(levels.T[:-1], levels.T[1:], strict=True):
        both = np.isfinite(before) & np.isfinite(after)
        if both.any():
            expected = _line(before, after, both)(expected)
        arrived = ~np.isnan(after)
        expected[arrived] = after[arrived]
    return expected


def _line(before: Array, after: Array, both: Mask) -> Callable[[Array], Array]:
    """The line from one step to the next: (n,), (n,), which are known at both."""
    x, y = before[both], after[both]
    away = x - x.mean()
    weight = _SLOPE_TRIALS * max(float(np.var(before[np.isfinite(before)])), _LEAST_SPREAD)
    slope = (float(away @ (y - y.mean())) + weight * _SLOPE) / (float(away @ away) + weight)
    return lambda level: y.mean() + slope * (level - x.mean())
