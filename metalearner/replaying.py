"""Replay: what a model of histories would have recommended to tasks whose results are known, had they been unknown.

A held-out history's own trials are ranked as the others see them, and the ranking is worth what its first trials
reached: regret 0 is the best of the history's trials, 1 their median. Beside it stands what choosing at random reaches,
which is also what TPE and a process without histories do for their first trials, and the plain portfolio, to which all
other histories are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metalearner.arrays import Array, Index
from metalearner.encoding import Encoding
from metalearner.fitted import FittedModel
from metalearner.hearing import hear
from metalearner.histories import TaskHistory, source
from metalearner.likeness import FeatureLikeness, Likeness
from metalearner.values import Problem

TRIALS = 3
LEAST_JUDGED = 4
"""Below this many held-out histories a replay says nothing."""
_LEAST_TRIALS = 6
_DRAWS = 256
_RESAMPLES = 1000
_SURE = 0.9
_MATTERS = 0.01


@dataclass(frozen=True)
class Replay:
    """Regrets by reference of the held-out history: the mean of the best after 1, 2 and 3 trials."""

    model: dict[str, float]
    random: dict[str, float]
    plain: dict[str, float]

    def means(self) -> dict[str, float]:
        """What is kept of it: the mean regret of each side."""
        sides = {"model": self.model, "random": self.random, "portfolio": self.plain}
        return {name: float(np.mean(list(found.values()))) for name, found in sides.items() if found}


def replay(
    histories: Sequence[TaskHistory], held_out: Sequence[int], model: FittedModel, likeness: Likeness | None = None
) -> Replay:
    """The held-out ones of the histories, each as all others see it. Those that nobody speaks of are left out."""
    likeness = likeness or FeatureLikeness()
    tasks = [one.task for one in histories]
    found = Replay({}, {}, {})
    for place in held_out:
        history = histories[place]
        own = source(history, 1.0, Encoding.of(history.space), None)
        if own is None or len(own.losses) < _LEAST_TRIALS:
            continue
        weights = likeness.weights(history.task, tasks)
        weights[place] = 0.0
        alike = np.ones(len(histories))
        alike[place] = 0.0
        ranked = [_ranked(history, own.rows, histories, one, model) for one in (weights, alike)]
        if ranked[0] is None or ranked[1] is None:
            continue
        found.model[history.reference] = _worth(own.losses, ranked[0])
        found.plain[history.reference] = _worth(own.losses, ranked[1])
        found.random[history.reference] = _by_chance(own.losses)
    return found


def refusal(challenger: Replay, champion: Replay | None) -> str | None:
    """Why the challenger may not replace the champion; None if it may.

    It must not be worse than choosing at random, nor than the champion on what both were asked: by more than a
    hundredth, and with a probability of more than nine tenths over histories drawn anew.
    """
    if len(challenger.model) < LEAST_JUDGED:
        return None
    rivals = {"the model in use": champion.model if champion else {}, "choosing at random": challenger.random}
    for name, other in rivals.items():
        common = sorted(set(challenger.model) & set(other))
        if len(common) < LEAST_JUDGED:
            continue
        ours, theirs = (np.array([side[one] for one in common]) for side in (challenger.model, other))
        if _surely_more(ours - theirs):
            return (
                f"worse than {name}: regret {ours.mean():.3f} instead of {theirs.mean():.3f} "
                f"over {len(common)} held-out histories"
            )
    return None


def _surely_more(differences: Array) -> bool:
    drawn = np.random.default_rng(0).choice(differences, (_RESAMPLES, len(differences))).mean(1)
    return bool(differences.mean() > _MATTERS and (drawn > 0.0).mean() > _SURE)


def _ranked(
    history: TaskHistory, rows: Array, others: Sequence[TaskHistory], weights: Array, model: FittedModel
) -> Index | None:
    """The places of a history's own settings, the one first that is expected most of."""
    hearing = hear(Problem(history.space, history.task.goal, 1, 1, 0), others, weights, model)
    if hearing is None:
        return None
    judged = hearing.judged(rows)
    return np.argsort(judged.weights @ judged.penalised, kind="stable")


def _worth(losses: Array, order: Index) -> float:
    return float(_regrets(losses)[np.minimum.accumulate(_ranks(losses)[order[:TRIALS]])].mean())


def _by_chance(losses: Array) -> float:
    generator = np.random.default_rng(0)
    return float(np.mean([_worth(losses, generator.permutation(len(losses))) for _ in range(_DRAWS)]))


def _ranks(losses: Array) -> Index:
    return np.asarray(np.argsort(np.argsort(losses, kind="stable"), kind="stable"))


def _regrets(losses: Array) -> Array:
    """By rank, the best first: 0 for the best, 1 for the median and whatever is worse."""
    ascending = np.sort(losses)
    best, median = ascending[0], ascending[len(ascending) // 2]
    if not np.isfinite(median) or median <= best:
        return np.where(ascending > best, 1.0, 0.0)
    return np.asarray(np.clip((ascending - best) / (median - best), 0.0, 1.0))
