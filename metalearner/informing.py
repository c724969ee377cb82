"""From histories to a problem that knows of them: its portfolio, and what they say of the whole space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metalearner import gp
from metalearner.arrays import Array
from metalearner.encoding import comparable, is_among
from metalearner.histories import TaskHistory
from metalearner.knowledge import Knowledge, agreement, directions, expansion, spread
from metalearner.levels import levels
from metalearner.listing import Shortlist
from metalearner.portfolio import ALIKE, FEW_ITEMS, MAX_ITEMS, Judged, item_of, judge, select, viewed
from metalearner.values import Problem

_AGREE = 0.3
_DISAGREE = 0.2
_FEW = 3
"""So many histories can disagree; of fewer nobody knows."""
_ROWS = 1024
_SHORTLIST = 8
"""Settings among which the portfolio goes on as its results tell."""


def informed(problem: Problem, histories: Sequence[TaskHistory], weights: Sequence[float]) -> Problem:
    """The problem with what the histories tell; unchanged where they say nothing about its space, and where several of
    which none is much like the task contradict each other.

    `weights` (H,): how like the task each history is, from 0 to 1. The answer depends on the arguments alone.
    """
    judged = judge(problem, histories, weights)
    if judged is None:
        return problem
    points = judged.encoding.rows(spread(judged.encoding.width))
    rows = np.concatenate([points, judged.rows])
    features = judged.encoding.features(rows)
    abroad = np.array([process.predict(features[: len(points)])[0] for process in judged.processes])
    means = np.concatenate([abroad, judged.means], axis=1)  # (H, A)
    # Histories that agree with each other where nobody told which is like which are evidence as good as features.
    agreed = agreement(abroad, judged.weights)
    likest = max(one.weight for one in judged.sources)
    if len(judged.sources) >= _FEW and agreed < _DISAGREE and likest < ALIKE:
        return problem
    alike = agreed >= _AGREE or likest >= ALIKE
    count = MAX_ITEMS if alike else FEW_ITEMS
    shortlist = _shortlist(problem, judged, count)
    return replace(
        problem,
        portfolio=shortlist.items[:count],
        knowledge=_knowledge(problem, judged, features, means, agreed, shortlist),
    )


def _shortlist(problem: Problem, judged: Judged, count: int) -> Shortlist:
    """`count` settings and as many more as there is room for, the expert's not among these: it has its own turn."""
    places = select(judged, _SHORTLIST)
    if problem.defaults is not None:
        default = judged.encoding.encode(problem.defaults)
        further = [place for place in places[count:] if not is_among(default, judged.rows[[place]])]
        places = [*places[:count], *further]
    items = tuple(item_of(judged, place) for place in places)
    return Shortlist(items, judged.rows[places], viewed(judged).only(places))


def _knowledge(
    problem: Problem, judged: Judged, features: Array, means: Array, agreed: float, shortlist: Shortlist
) -> Knowledge:
    values, loadings = directions(means, judged.weights)
    groups = judged.encoding.groups
    logs = [np.log(process.kernel.length_scales) for process in judged.processes]
    kernel = gp.Kernel(np.exp(np.average(logs, axis=0, weights=judged.weights)), 1.0, 1e-6, 1.0)
    anchors, coefficients = expansion(kernel, groups, features, values)
    found = judged.sources
    digest = hashlib.sha256(coefficients.tobytes() + anchors.tobytes())
    return Knowledge(
        digest=digest.hexdigest()[:16],
        references=tuple(one.history.reference for one in found),
        similarities=tuple(one.weight for one in found),
        bests=tuple(one.history.best or 0.0 for one in found),
        agreement=agreed,
        weights=judged.weights,
        loadings=loadings,
        rows=_tried(judged),
        kernel=kernel,
        groups=groups,
        anchors=anchors,
        coefficients=coefficients,
        levels=levels([one.losses for one in found if _same_metric(one.history, problem)]),
        shortlist=shortlist,
    )


def _tried(judged: Judged) -> Array:
    """What the histories tried, the candidates first, each row once: (C, D), C at most _ROWS."""
    everything = np.concatenate([judged.rows, *(one.rows for one in judged.sources)])
    _, first = np.unique(np.round(comparable(everything), 6), axis=0, return_index=True)
    kept = np.sort(first)
    if len(kept) > _ROWS:
        own = kept[: len(judged.rows)]
        rest = kept[len(own) :]
        kept = np.concatenate([own, rest[np.linspace(0, len(rest) - 1, _ROWS - len(own)).astype(np.intp)]])
    return np.asarray(everything[kept])


def _same_metric(history: TaskHistory, problem: Problem) -> bool:
    return (history.task.metric, history.task.goal) == (problem.metric, problem.goal)
