"""The prior tasks most like a data set, and why: a project's histories ordered by how like their data are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from metalearner import Likeness, SpaceLikeness, Task, TaskHistory
from metalearner.arrays import Array
from metalearner.likeness import feature_distance
from metalearner.task_sample import FEATURE
from service.db.histories import StoredHistory
from service.db.session import Database
from service.usecases import fitting
from service.usecases import histories as usecase
from workers.likeness import likeness_of
from workers.priors import starter_for, task_history
from workers.starter.shelf import name_of

_FEATURES_SHOWN = 3


def neighbours(database: Database, payload: JsonObject) -> JsonObject:
    """`{"space": "features" or "learned", "considered", "neighbours": [foretune.wire.datasets.Neighbour]}`, the nearest
    first.

    `payload`: `project`, `dataset` (its id), `features`, `network` (or null: as every network sees it) and `limit`.
    """
    project, features, network, limit = (payload[name] for name in ("project", "features", "network", "limit"))
    assert isinstance(features, dict)
    assert isinstance(limit, int)
    said = {name: value for name, value in features.items() if isinstance(value, str | int | float)}
    usecase.catch_up(database, str(project))
    with database.reading() as tx:
        stored = usecase.read_some(tx, str(project), fitting.heard(tx, str(project)))
        champion = fitting.in_use(tx, str(project))
        likeness = likeness_of(fitting.space(tx, str(project), champion.version if champion else None))
    known = [(task_history(one), one) for one in stored]
    shipped = starter_for(network) if isinstance(network, str) else ()
    candidates: list[tuple[TaskHistory, StoredHistory | None]] = [*known, *((one, None) for one in shipped)]
    candidates = [pair for pair in candidates if network is None or pair[0].task.network == network]
    tasks = [one.task for one, _ in candidates]
    nearness = {
        name: _nearness(Task("", Goal.MINIMIZE, str(payload["dataset"]), name, said), tasks, likeness)
        for name in {one.network for one in tasks}
    }
    found = []
    for place, (one, row) in enumerate(candidates):
        # As the history's own network sees it.
        similarity, distance = (float(values[place]) for values in nearness[one.task.network])
        if similarity > 0.0:
            found.append((similarity, distance, one, row))
    found.sort(key=lambda item: (-item[0], item[2].reference))
    items: list[JsonValue] = [_described(said, one, row, *near) for *near, one, row in found[:limit]]
    space = "learned" if isinstance(likeness, SpaceLikeness) else "features"
    return {"space": space, "considered": len(candidates), "neighbours": items}


def _nearness(task: Task, others: Sequence[Task], likeness: Likeness) -> tuple[Array, Array]:
    """How like the others (H) are, and how far away; NaN where nothing can be said: (H,), (H,)."""
    if isinstance(likeness, SpaceLikeness):
        return likeness.weights(task, others), likeness.distances(task, others)
    apart = [feature_distance(task.features, other.features) for other in others]
    return likeness.weights(task, others), np.array([math.nan if one is None else one for one in apart])


def _described(
    features: Mapping[str, float | str],
    history: TaskHistory,
    row: StoredHistory | None,
    similarity: float,
    distance: float,
) -> JsonObject:
    theirs = history.task
    gaps: list[tuple[float, str]] = []
    for name in (features.keys() & theirs.features.keys()) - {FEATURE}:
        gap = feature_distance({name: features[name]}, {name: theirs.features[name]})
        if gap is not None:
            gaps.append((gap, name))
    gaps.sort()
    compared: list[JsonValue] = [
        {"feature": name, "here": features[name], "there": theirs.features[name], "difference": gap}
        for gap, name in gaps
    ]
    shown = min(_FEATURES_SHOWN, len(compared) // 2)
    return {
        "experiment": history.reference,
        "name": row.name if row is not None else name_of(history),
        "dataset": theirs.dataset,
        "network": theirs.network,
        "similarity": similarity,
        "distance": distance if math.isfinite(distance) else None,
        "alike": compared[:shown],
        "unlike": [one for one, (gap, _) in zip(compared[::-1][:shown], gaps[::-1], strict=False) if gap > 0.0],
        "metric": theirs.metric,
        "best": history.best,
        "hyperparameters": _best_setting(history),
    }


def _best_setting(history: TaskHistory) -> JsonObject:
    """What reached the best value; empty where every trial diverged."""
    places = [place for place, value in enumerate(history.values) if value is not None and value == history.best]
    if not places:
        return {}
    return {name: column[places[0]] for name, column in history.columns.items() if column[places[0]] is not None}
