"""Recommendations, from values of the meta-learner to what the API answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import orjson

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.spaces import Space
from foretune.states import TrialState
from metalearner import Prediction, Problem, Recommendation, Task, foresee, recommend
from service.db.histories import StoredHistory
from service.db.session import Database
from service.usecases import histories
from service.usecases.proposals import SeenTrial
from workers.priors import evidence_json, starter_for, weighed
from workers.proposals import Proposals

_KEPT_ANSWERS = 256
_KEPT_PROJECTS = 8


def recommend_for_experiment(proposals: Proposals, experiment_id: str, payload: JsonObject) -> JsonObject:
    """`{"confidence", "items": [{"configuration", "origin", "predicted", "trial"}]}` from the experiment's own results.

    `payload`: `experiment`, `count`. Raises NotFound.
    """
    problem, observations, trials = proposals.observed(experiment_id)
    count = payload.get("count", 3)
    found = recommend(problem, observations, problem.defaults, count if isinstance(count, int) else 3)
    return {
        "confidence": found.confidence.value,
        "items": [_item(problem, one, trials) for one in found.items],
    }


class TaskRecommendations:
    """What to use on tasks on which nothing has run. Answers are kept until their project's histories change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers: OrderedDict[tuple[str, bytes], JsonObject] = OrderedDict()
        self._histories: OrderedDict[str, tuple[str, list[StoredHistory]]] = OrderedDict()

    def recommend(self, payload: JsonObject) -> JsonObject:
        """`{"confidence", "items": [{"configuration", "predicted", "evidence"}]}` from the project's histories.

        `payload`: `project`, `space`, `metric` (or null), `goal`, `dataset` (its id, or null), `network` (or null),
        `features`, `defaults` (or null), `max_epochs` and `count`, as `service.usecases.recommendations` sends them.
        """
        project = str(payload["project"])
        version, stored = self._read(project)
        key = (version, orjson.dumps(payload, option=orjson.OPT_SORT_KEYS))
        answer = self._answers.pop(key, None)
        if answer is None:
            answer = _for_task(stored, payload)
        self._answers[key] = answer
        while len(self._answers) > _KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    def _read(self, project: str) -> tuple[str, list[StoredHistory]]:
        histories.catch_up(self._database, project)
        kept = self._histories.pop(project, None)
        with self._database.reading() as tx:
            version = histories.version(tx, project)
            if kept is None or kept[0] != version:
                kept = (version, histories.read_all(tx, project))
        self._histories[project] = kept
        while len(self._histories) > _KEPT_PROJECTS:
            self._histories.popitem(last=False)
        return kept


def _for_task(stored: Sequence[StoredHistory], payload: JsonObject) -> JsonObject:
    task = _task(payload)
    defaults = payload["defaults"]
    problem = Problem(
        space=Space.from_json(payload["space"]),
        goal=task.goal,
        max_epochs=_number(payload["max_epochs"]),
        max_trials=1,
        seed=0,
        defaults=defaults if isinstance(defaults, dict) else None,
    )
    priors = weighed(task, stored, starter=starter_for(task.network))
    found, confidence = foresee(problem, task, priors.histories, priors.weights, _number(payload["count"]))
    return {
        "confidence": confidence.value,
        "items": [
            {
                "configuration": one.item.configuration,
                "predicted": _prediction(one.predicted),
                "evidence": evidence_json(one.item.evidence),
            }
            for one in found
        ],
    }


def _task(payload: JsonObject) -> Task:
    features = payload["features"]
    assert isinstance(features, dict)
    said = {name: value for name, value in features.items() if isinstance(value, str | int | float)}
    dataset, network = payload["dataset"], payload["network"]
    return Task(
        metric=str(payload["metric"] or ""),
        goal=Goal(str(payload["goal"])),
        dataset=dataset if isinstance(dataset, str) else None,
        network=network if isinstance(network, str) else None,
        features=said,
    )


def _number(value: JsonValue) -> int:
    assert isinstance(value, int)
    return value


def _prediction(predicted: Prediction | None) -> JsonObject | None:
    if predicted is None:
        return None
    return {"median": predicted.median, "low": predicted.low, "high": predicted.high}


def _item(problem: Problem, one: Recommendation, trials: dict[str, SeenTrial]) -> JsonObject:
    return {
        "configuration": one.configuration,
        "origin": one.origin.value,
        "predicted": _prediction(one.predicted),
        "trial": _trial_of(problem, one, trials),
    }


def _trial_of(problem: Problem, one: Recommendation, trials: dict[str, SeenTrial]) -> str | None:
    """The best trial that ran with exactly this configuration."""
    same = [
        trial
        for trial in trials.values()
        if trial.state is TrialState.COMPLETED
        and trial.best_value is not None
        and trial.configuration == one.configuration
    ]
    if not same:
        return None
    return max(same, key=lambda trial: problem.goal.sign * (trial.best_value or 0.0)).id
