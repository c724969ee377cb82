"""The histories that are heard about a task, and what they say: how settings rank, and what values they should reach.

Only the most telling ones are heard, each through its own process with its own kernel, conditioned once.
Symbols: H histories heard, H' of them that tell values, C candidates, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice

import numpy as np
from scipy.special import ndtri

from metalearner import gp
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.fitted import FittedModel
from metalearner.histories import Source, Task, TaskHistory, look, source
from metalearner.intervals import Forecast
from metalearner.kernels import placed
from metalearner.outcomes import Scale, warp
from metalearner.portfolio import Judged, chosen_trials, opinions
from metalearner.values import Problem

SAME_DATA = 0.99
_HEARD = 20
_TELLING_FROM = 0.15
_LEVELS_FROM = 3
"""How good a value can be differs from data to data: fewer histories of other data do not tell."""
_UNLIKE = 0.5
"""How far a score may differ, in deviations of a history's outcomes, between tasks that have nothing in common."""
_QUANTILES = ndtri((np.arange(41) + 0.5) / 41)
"""Evenly spread, of a normal distribution."""
_ENDS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class _Testimony:
    """A history's process of normal scores, and one of scores that are linear where it is good.

    Ranks make a peak of the optimum that a smooth process cuts off.
    """

    posterior: gp.Posterior
    scale: Scale
    levels: gp.Posterior


@dataclass(frozen=True)
class Witness:
    """One history in the target space: its process of normal scores, and the way from there to its own values."""

    source: Source
    testimony: _Testimony

    @property
    def posterior(self) -> gp.Posterior:
        return self.testimony.posterior

    def quantiles(self, features: Array) -> Array:
        """Quantiles of each candidate's loss, in the history's units, as this history sees it: (C, P) -> (C, Q)."""
        scale, posterior = self.testimony.scale, self.testimony.levels
        mean, variance = posterior.predict(features)
        unlike = _UNLIKE * (1.0 - self.source.similarity)
        deviation = np.sqrt(variance + posterior.kernel.noise + unlike**2)
        return scale.values(mean[:, None] + deviation[:, None] * _QUANTILES[None, :])


@dataclass(frozen=True)
class Hearing:
    """Who is heard; the one that counts most first."""

    witnesses: list[Witness]
    weights: Array  # (H,), with sum 1
    encoding: Encoding

    @property
    def sources(self) -> list[Source]:
        return [one.source for one in self.witnesses]

    @property
    def same_data(self) -> bool:
        """Whether somebody heard speaks of the very data."""
        return any(one.source.similarity >= SAME_DATA for one in self.witnesses)

    def judged(self, rows: Array) -> Judged:
        """What everybody heard says of these settings: (C, D)."""
        features = self.encoding.features(rows)
        means, deviations = np.empty((len(self.witnesses), len(rows))), np.empty((len(self.witnesses), len(rows)))
        for position, one in enumerate(self.witnesses):
            mean, variance = one.posterior.predict(features)
            means[position], deviations[position] = mean, np.sqrt(variance)
        processes = [one.posterior for one in self.witnesses]
        return Judged(self.sources, self.weights, self.encoding, rows, means, deviations, processes)

    def telling(self, task: Task) -> list[int]:
        """Who can say what values the task's metric will reach; nobody where too few speak of it."""
        found = [
            place
            for place, one in enumerate(self.witnesses)
            if one.source.similarity >= _TELLING_FROM
            and (one.source.history.task.metric, one.source.history.task.goal) == (task.metric, task.goal)
        ]
        same = any(self.witnesses[place].source.similarity >= SAME_DATA for place in found)
        return found if len(found) >= (1 if same else _LEVELS_FROM) else []

    def forecasts(self, rows: Array, telling: Sequence[int]) -> list[Forecast]:
        """The loss of each setting (C, D) as a mixture over those who tell, before calibration."""
        features = self.encoding.features(rows)
        losses = np.concatenate([self.witnesses[place].quantiles(features) for place in telling], axis=1)  # (C, H' Q)
        weights = np.repeat(self.weights[list(telling)], len(_QUANTILES))
        order = np.argsort(losses, axis=1, kind="stable")
        cumulative = np.cumsum(weights[order], axis=1) / weights.sum()
        found = []
        for row in range(len(rows)):
            places = np.minimum(np.searchsorted(cumulative[row], _ENDS), losses.shape[1] - 1)
            found.append(Forecast.of(*losses[row][order[row][places]].tolist()))
        return found


def hear(
    problem: Problem, histories: Sequence[TaskHistory], weights: Sequence[float] | Array, model: FittedModel
) -> Hearing | None:
    """The most telling histories that say something about the problem's space; None where none does.

    `weights` (H,): how like the task each history is, from 0 to 1.
    """
    encoding = Encoding.of(problem.space)
    found: list[Source] = []
    likest = _likest_first(np.asarray(weights, dtype=np.float64), histories)
    first = list(islice(likest, _HEARD))
    look([histories[place] for place in first if weights[place] > 0.0], encoding, problem.defaults)
    for place in chain(first, likest):
        if len(found) == _HEARD:
            break
        seen = source(histories[place], float(weights[place]), encoding, problem.defaults)
        if seen is not None:
            found.append(seen)
    if not found:
        return None
    found.sort(key=lambda one: (-one.weight, one.history.reference))
    return Hearing([_witness(one, encoding, model) for one in found], opinions(found), encoding)


def listen(problem: Problem, histories: Sequence[TaskHistory], model: FittedModel) -> Iterator[TaskHistory]:
    """What `hear` works out of a history that it hears for the first time, of one after the other: about a millisecond
    each, and nothing where it is known.
    """
    encoding = Encoding.of(problem.space)
    for history in histories:
        seen = source(history, 1.0, encoding, problem.defaults)
        if seen is not None:
            _witness(seen, encoding, model)
        yield history


def _likest_first(weights: Array, histories: Sequence[TaskHistory]) -> Iterator[int]:
    """The places of the histories; those of the same weight (H,) by their names. Nobody looks at more than a few."""
    order = np.argsort(-weights, kind="stable").tolist()
    for _, alike in groupby(order, key=weights.tolist().__getitem__):
        yield from sorted(alike, key=lambda place: histories[place].reference)


def _witness(one: Source, encoding: Encoding, model: FittedModel) -> Witness:
    kernel = model.kernel(one.history)
    known = one.worked_out.get(kernel)
    if not isinstance(known, _Testimony):
        known = one.worked_out[kernel] = _testimony(one, placed(kernel, one.history, encoding), encoding)
    return Witness(one, known)


def _testimony(one: Source, kernel: gp.Kernel, encoding: Encoding) -> _Testimony:
    chosen = chosen_trials(one.scores)
    posterior = gp.condition(kernel, encoding.groups, one.features[chosen], one.scores[chosen])
    scale, scores = warp(one.losses[chosen])
    return _Testimony(posterior, scale, posterior.with_targets(scores))
