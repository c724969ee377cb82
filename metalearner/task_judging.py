"""Whether a metric space of tasks earns its place: a replay on families of tasks that it never saw.

The families are dealt into folds; of each fold's tasks nothing is known but what describes them. Three lists of
settings are made of the other folds' histories, and only their weights differ:

    unweighted   every history counts the same
    features     nearest neighbours on trivial features: `metalearner.likeness.FeatureLikeness`
    space        a space that was trained on the other folds

A list is chosen greedily among the probes of its kind (`metalearner.surfaces`), as `metalearner.portfolio` does it,
with weights sharpened as there. Its regret after k settings is (best of the k - best of all) / (median - best of all)
in the task's normal scores: 0 for the best probe, 1 for a median one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import numpy as np

from foretune.json_types import JsonObject
from metalearner.arrays import Array
from metalearner.histories import TaskHistory
from metalearner.likeness import FeatureLikeness
from metalearner.surfaces import Surfaces, correlations, surfaces
from metalearner.task_episodes import family_of
from metalearner.task_space import SpaceLikeness, TaskSpace
from metalearner.task_training import train

Arm = Literal["unweighted", "features", "space"]
ARMS: tuple[Arm, ...] = ("unweighted", "features", "space")
AFTER = (1, 5)
"""Regret is told after so many settings."""
_SHARPENED = 3
_DRAWS = 2000
_SURE = 0.9
_NO_WORSE = 0.01


@dataclass(frozen=True)
class FamilyScore:
    """What came out on one family left out: means over its `tasks`."""

    family: str
    tasks: int
    regrets: Mapping[Arm, tuple[float, ...]]
    """After each number of settings in `AFTER`."""
    agreement: Mapping[Arm, float]
    """The rank correlation of predicted likeness with the rank correlation of surfaces, over a task's support; for
    `unweighted` it is 0."""

    def to_json(self) -> JsonObject:
        """What `from_json` reads."""
        return {
            "family": self.family,
            "tasks": self.tasks,
            "regrets": {arm: list(self.regrets[arm]) for arm in ARMS},
            "agreement": {arm: self.agreement[arm] for arm in ARMS},
        }

    @classmethod
    def from_json(cls, told: JsonObject) -> FamilyScore:
        """What `to_json` made."""
        regrets, agreement = cast("dict[Arm, list[float]]", told["regrets"]), told["agreement"]
        return cls(
            str(told["family"]),
            cast("int", told["tasks"]),
            {arm: tuple(regrets[arm]) for arm in ARMS},
            cast("dict[Arm, float]", agreement),
        )


@dataclass(frozen=True)
class Judgement:
    """The families' scores; each family counts the same."""

    families: tuple[FamilyScore, ...]

    def regret(self, arm: Arm, after: int) -> float:
        """The mean over families."""
        return float(self._regrets(arm, after).mean())

    def agreement(self, arm: Arm) -> float:
        """The mean over families."""
        return float(np.mean([one.agreement[arm] for one in self.families]))

    def probability(self, floor: Arm, after: int) -> float:
        """That the space is better than `floor` on families drawn anew (bootstrap over families)."""
        better = self._regrets(floor, after) - self._regrets("space", after)
        draws = np.random.default_rng(0).integers(len(better), size=(_DRAWS, len(better)))
        means = better[draws].mean(1)
        return float((means > 0.0).mean() + 0.5 * (means == 0.0).mean())

    @classmethod
    def of(cls, scores: Sequence[FamilyScore]) -> Judgement | None:
        """Of all folds' scores; None of none."""
        return cls(tuple(sorted(scores, key=lambda one: one.family))) if scores else None

    @property
    def wins(self) -> bool:
        """Whether the space is better than both floors at first choice, surely, and never worse after five."""
        floors: tuple[Arm, ...] = ("unweighted", "features")
        return all(self.probability(floor, AFTER[0]) >= _SURE for floor in floors) and all(
            self.regret("space", after) <= self.regret(floor, after) + _NO_WORSE for floor in floors for after in AFTER
        )

    def _regrets(self, arm: Arm, after: int) -> Array:
        return np.array([one.regrets[arm][AFTER.index(after)] for one in self.families])


class Judging:
    """The replay, fold by fold, so that whoever is interrupted goes on with the next one. Equal arguments give equal
    scores, as long as `train` does. `families` (H) is as `train` takes it.
    """

    def __init__(
        self, histories: Sequence[TaskHistory], *, seed: int, families: Sequence[str] | None = None, folds: int = 5
    ) -> None:
        self._histories, self._seed = histories, seed
        self._families = list(families) if families is not None else [family_of(history) for history in histories]
        names = sorted(set(self._families))
        self.folds = min(folds, len(names))
        order = np.random.default_rng(seed).permutation(len(names))
        self._fold_of = {names[place]: position % self.folds for position, place in enumerate(order)}

    def fold(
        self, number: int, *, seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> list[FamilyScore] | None:
        """The scores of this fold's families, from a space trained without them; None: there is too little to train on.

        `meanwhile` is called every few steps of training, and may raise.
        """
        known = [place for place, family in enumerate(self._families) if self._fold_of[family] != number]
        space = train(
            [self._histories[place] for place in known],
            seed=self._seed,
            seconds=seconds,
            families=[self._families[place] for place in known],
            meanwhile=meanwhile,
        )
        if space is None:
            return None
        out = {family for family, fold in self._fold_of.items() if fold == number}
        return _scored(self._histories, self._families, self._kinds, space, out)

    @cached_property
    def _kinds(self) -> list[Surfaces]:
        return surfaces(self._histories)


def judge(
    histories: Sequence[TaskHistory],
    *,
    seed: int,
    seconds: float,
    families: Sequence[str] | None = None,
    folds: int = 5,
) -> Judgement | None:
    """The whole replay, its spaces trained in about `seconds` together; None where there is too little to train on."""
    judging = Judging(histories, seed=seed, families=families, folds=folds)
    scores: list[FamilyScore] = []
    for number in range(judging.folds):
        found = judging.fold(number, seconds=seconds / judging.folds)
        if found is None:
            return None
        scores += found
    return Judgement.of(scores)


def _scored(
    histories: Sequence[TaskHistory],
    families: Sequence[str],
    kinds: Sequence[Surfaces],
    space: TaskSpace,
    out: set[str],
) -> list[FamilyScore]:
    """The scores of the families in `out`, each task against the histories of its kind outside of it."""
    regrets: dict[str, list[dict[Arm, tuple[float, ...]]]] = defaultdict(list)
    agreements: dict[str, list[dict[Arm, float]]] = defaultdict(list)
    features, learned = FeatureLikeness(), SpaceLikeness(space)
    for kind in kinds:
        support = [line for line, member in enumerate(kind.members) if families[member] not in out]
        if len(support) < 2:
            continue
        others = [histories[kind.members[line]].task for line in support]
        likeness = kind.likeness
        for line, member in enumerate(kind.members):
            if families[member] not in out:
                continue
            task = histories[member].task
            weights: dict[Arm, Array] = {
                "unweighted": np.ones(len(support)),
                "features": features.weights(task, others),
                "space": learned.weights(task, others),
            }
            lists = {arm: greedy(kind.scores[support], weights[arm] ** _SHARPENED, max(AFTER)) for arm in ARMS}
            regrets[families[member]].append({arm: regret(kind.scores[line], lists[arm]) for arm in ARMS})
            agreements[families[member]].append(
                {arm: float(correlations(np.stack([weights[arm], likeness[line, support]]))[0, 1]) for arm in ARMS}
            )
    return [
        FamilyScore(
            family,
            len(found),
            {arm: tuple(np.mean([one[arm] for one in found], axis=0).tolist()) for arm in ARMS},
            {arm: float(np.mean([one[arm] for one in agreements[family]])) for arm in ARMS},
        )
        for family, found in regrets.items()
    ]


def greedy(scores: Array, weights: Array, k: int) -> list[int]:
    """Which k probes together reach the lowest weighted mean of the best score: `scores` (H, P), `weights` (H,)."""
    reached = np.full(len(scores), math.inf)
    chosen: list[int] = []
    for _ in range(min(k, scores.shape[1])):
        totals = weights @ np.minimum(reached[:, None], scores)
        totals[chosen] = math.inf
        chosen.append(int(totals.argmin()))
        reached = np.minimum(reached, scores[:, chosen[-1]])
    return chosen


def regret(scores: Array, chosen: Sequence[int]) -> tuple[float, ...]:
    """Normalised regret after each number of settings in `AFTER`: `scores` (P,)."""
    best = float(scores.min())
    usual = max(float(np.median(scores)) - best, 1e-12)
    return tuple((float(scores[list(chosen[:after])].min()) - best) / usual for after in AFTER)
