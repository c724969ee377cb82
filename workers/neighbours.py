"""The prior tasks most like a data set, and why: a project's histories ordered by how like their data are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from foretune.json_types import JsonObject, JsonValue
from metalearner import Task, TaskHistory, similarity
from metalearner.likeness import feature_distance
from metalearner.task_sample import FEATURE
from service.db.histories import StoredHistory
from service.db.session import Database
from service.usecases import fitting
from service.usecases import histories as usecase
from workers.priors import starter_for, task_history
from workers.starter.shelf import name_of

_FEATURES_SHOWN = 3


def neighbours(database: Database, payload: JsonObject) -> JsonObject:
    """`{"space": "features", "considered", "neighbours": [foretune.wire.datasets.Neighbour]}`, the nearest first.

    `payload`: `project`, `dataset` (its id), `features`, `network` (or null: as every network sees it) and `limit`.
    """
    project, features, network, limit = (payload[name] for name in ("project", "features", "network", "limit"))
    assert isinstance(features, dict)
    assert isinstance(limit, int)
    said = {name: value for name, value in features.items() if isinstance(value, str | int | float)}
    usecase.catch_up(database, str(project))
    with database.reading() as tx:
        stored = usecase.read_some(tx, str(project), fitting.heard(tx, str(project)))
    known = [(task_history(one), one) for one in stored]
    shipped = starter_for(network) if isinstance(network, str) else ()
    candidates: list[tuple[TaskHistory, StoredHistory | None]] = [*known, *((one, None) for one in shipped)]
    candidates = [pair for pair in candidates if network is None or pair[0].task.network == network]
    found = [(_likeness(str(payload["dataset"]), said, one), one, row) for one, row in candidates]
    near = sorted((item for item in found if item[0] > 0.0), key=lambda item: (-item[0], item[1].reference))
    items: list[JsonValue] = [_described(said, one, row, likeness) for likeness, one, row in near[:limit]]
    return {"space": "features", "considered": len(candidates), "neighbours": items}


def _likeness(dataset: str, features: Mapping[str, float | str], history: TaskHistory) -> float:
    """As the history's own network and metric see it."""
    theirs = history.task
    return similarity(Task(theirs.metric, theirs.goal, dataset, theirs.network, features), theirs)


def _described(
    features: Mapping[str, float | str], history: TaskHistory, row: StoredHistory | None, likeness: float
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
    distance = feature_distance(features, theirs.features)
    return {
        "experiment": history.reference,
        "name": row.name if row is not None else name_of(history),
        "dataset": theirs.dataset,
        "network": theirs.network,
        "similarity": likeness,
        "distance": distance if distance is not None and math.isfinite(distance) else None,
        "alike": compared[:shown],
        "unlike": compared[::-1][:shown],
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
