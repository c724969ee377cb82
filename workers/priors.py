"""What an experiment learns from: its project's histories as the meta-learner sees them, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import orjson

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from metalearner import Evidence, FeatureLikeness, Likeness, Problem, SpaceLikeness, Task, TaskHistory, informed
from metalearner.portfolio import judge
from service.db.histories import StoredHistory
from service.db.session import Database
from service.settings import settings
from service.usecases import fitting
from service.usecases import histories as usecase
from service.usecases.proposals import StoredExperiment
from workers.likeness import likeness_of
from workers.starter.shelf import name_of, starter_histories

_NAMED = 0.5
"""An experiment that a user names as a prior counts as at least so much like the task."""


@dataclass(frozen=True)
class Priors:
    """The histories that an experiment may learn from, and how much each one counts, from 0 to 1."""

    histories: tuple[TaskHistory, ...] = ()
    weights: tuple[float, ...] = ()
    names: Mapping[str, str] | None = None
    model: int | None = None
    """The version of the project's model whose space of tasks weighed them; None: their features did."""

    @property
    def space(self) -> str:
        """What the weights rest on, as `foretune.wire.histories.Priors` says it."""
        return "features" if self.model is None else "learned"

    @property
    def seen(self) -> JsonObject:
        """How many histories there were, and a digest of which: with them a proposal can be made again."""
        references = sorted(history.reference for history in self.histories)
        return {
            **({} if self.model is None else {"space_of_model": self.model}),
            "count": len(references),
            "digest": hashlib.sha256("\n".join(references).encode()).hexdigest()[:16],
        }


def priors_of(database: Database, experiment: StoredExperiment) -> Priors:
    """What the experiment may learn from. The answer is the same in every worker, as long as nothing is deleted."""
    if experiment.priors == "none":
        return Priors()
    usecase.catch_up(database, experiment.project_id, experiment.created_at)
    with database.reading() as tx:
        stored = usecase.read_for(tx, experiment)
        features = usecase.task_features(tx, experiment)
        likeness = likeness_of(fitting.space(tx, experiment.project_id, experiment.model))
    task = Task(experiment.metric_name, experiment.goal, experiment.dataset_id, experiment.network, features)
    learned = experiment.model if isinstance(likeness, SpaceLikeness) else None
    if isinstance(experiment.priors, list):
        found = weighed(task, stored, _NAMED, likeness=likeness)
    else:
        found = weighed(task, stored, starter=starter_for(experiment.network), likeness=likeness)
    return replace(found, model=learned)


def starter_for(network: str | None) -> tuple[TaskHistory, ...]:
    """What ships with the service on this network, unless it is switched off. An external task brings no network: then
    only what the project itself has learned counts."""
    if network is None or not settings().foretune_starter_history:
        return ()
    return tuple(history for history in starter_histories() if history.task.network == network)


def weighed(
    task: Task,
    stored: Sequence[StoredHistory],
    least: float = 0.0,
    starter: Sequence[TaskHistory] = (),
    likeness: Likeness | None = None,
) -> Priors:
    """The histories with their likeness to the task, but at least `least`, and those of the starter history."""
    found = [*(task_history(one) for one in stored), *starter]
    weights = (likeness or FeatureLikeness()).weights(task, [one.task for one in found])
    names = {one.reference: one.name for one in stored} | {one.reference: name_of(one) for one in starter}
    return Priors(tuple(found), tuple(np.maximum(least, weights).tolist()), names)


def with_knowledge(problem: Problem, network: str | None, priors: Priors) -> Problem:
    """The problem with what the histories recommend to try first."""
    known = any(
        one.task.network == network and weight > 0.0
        for one, weight in zip(priors.histories, priors.weights, strict=True)
    )
    problem = replace(problem, network_known=known and network is not None)
    return informed(problem, priors.histories, priors.weights)


def described(problem: Problem, priors: Priors) -> list[JsonValue]:
    """The histories that count, the most similar first, as `foretune.wire.histories.PriorHistory`."""
    judged = judge(problem, priors.histories, priors.weights) if priors.histories else None
    names = priors.names or {}
    return [
        {
            "experiment": one.history.reference,
            "name": names.get(one.history.reference, ""),
            "similarity": one.similarity,
            "trials": len(one.history.values),
            "best": one.history.best,
            "metric": one.history.task.metric,
        }
        for one in (judged.sources if judged else [])
    ]


def described_gate(problem: Problem, believed: float | None, results: int) -> JsonObject | None:
    """How far the histories are believed, as `foretune.wire.histories.PriorGate`; None where nobody is asked."""
    if believed is None or problem.knowledge is None:
        return None
    if results == 0:
        says = "open until results say otherwise"
    elif believed == 0.0:
        says = "shut: the results are not what the histories promised"
    elif believed < 1.0:
        says = "half open: the results are in part what the histories promised"
    else:
        says = "open: the results are what the histories promised"
    agreement = problem.knowledge.agreement
    return {"trust": believed, "agreement": agreement, "results": results, "says": says}


def evidence_json(evidence: Sequence[Evidence]) -> list[JsonValue]:
    """What speaks for a setting, as `foretune.wire.recommendations.Evidence`."""
    return [{"experiment": one.history, "similarity": one.similarity, "best": one.best} for one in evidence]


def task_history(stored: StoredHistory) -> TaskHistory:
    """A row as the meta-learner sees it."""
    return TaskHistory(
        reference=stored.reference,
        task=Task(stored.metric_name, stored.goal, stored.dataset_id, stored.network, stored.features),
        space=_space(orjson.dumps(stored.space)),
        # Tuples of numbers, unlike lists, are nothing that a garbage collection looks through: of a thousand histories,
        # a hundred thousand times.
        columns={name: tuple(values) for name, values in stored.configurations.items()},
        values=tuple(stored.results),
        fixed=stored.fixed,
    )


@lru_cache(maxsize=256)
def _space(written: bytes) -> Space:
    """Most histories of a project search one of a few spaces."""
    return Space.from_json(orjson.loads(written))
