"""Recommendations, from values of the meta-learner to what the API answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.spaces import Space
from foretune.states import TrialState
from metalearner import (
    FittedModel,
    Likeness,
    Prediction,
    Problem,
    Recommendation,
    Task,
    TaskHistory,
    fit,
    foresee,
    listen,
    recommend,
)
from metalearner.arrays import Mask
from service.db.models import Standing
from service.db.session import Database
from service.settings import settings
from service.usecases import fitting, histories
from service.usecases.proposals import SeenTrial
from workers.fitted_parts import model_of
from workers.likeness import likeness_of
from workers.priors import evidence_json, task_history
from workers.proposals import Proposals
from workers.starter.shelf import starter_histories

_KEPT_ANSWERS = 256
_KEPT_PROJECTS = 8
_MOST_KERNELS = 64
_MOST_HELD_OUT = 24
"""Of the newest histories that no model covers yet so many are fitted before the first answer: a second's work."""


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


@dataclass(frozen=True)
class _Known:
    """A project's histories as the meta-learner sees them, and what was fitted on them."""

    standing: Standing
    histories: dict[str, TaskHistory]
    """By fingerprint, the newest first."""
    listed: list[TaskHistory]
    tasks: list[Task]
    starter: Mask
    """Which of those listed shipped with the service: they speak of our own networks alone."""
    model: FittedModel
    likeness: Likeness


class _Ahead:
    """What histories that nobody was asked about yet say in a space: worked out step by step, before somebody asks."""

    def __init__(self, known: _Known | None = None, problem: Problem | None = None) -> None:
        self._known, self._problem = known, problem
        self._steps: Iterator[object] = iter(())
        if known is not None and problem is not None:
            self._steps = listen(problem, known.listed, known.model)

    def is_of(self, known: _Known, problem: Problem) -> bool:
        return self._known is known and self._problem == problem

    def step(self) -> bool:
        return next(self._steps, None) is not None


class TaskRecommendations:
    """What to use on tasks on which nothing has run. Answers are kept until their project's histories or model change.

    Use from one thread, but for `work_ahead`. What it keeps is worked out again after a restart, to the same answers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answers: OrderedDict[tuple[Standing, bytes], JsonObject] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._ahead = _Ahead()

    def recommend(self, payload: JsonObject) -> JsonObject:
        """`{"confidence", "items": [{"configuration", "predicted", "evidence"}], "model": {"version", "experiments",
        "trials"}}` from the project's histories.

        `payload`: `project`, `space`, `metric` (or null), `goal`, `dataset` (its id, or null), `network` (or null),
        `features`, `defaults` (or null), `max_epochs` and `count`, as `service.usecases.recommendations` sends them.
        """
        known = self._read(str(payload["project"]))
        key = (known.standing, orjson.dumps(payload, option=orjson.OPT_SORT_KEYS))
        answer = self._answers.pop(key, None)
        if answer is None:
            problem = _problem(payload)
            answer = _for_task(known, problem, payload)
            if not self._ahead.is_of(known, problem):
                self._ahead = _Ahead(known, problem)
        self._answers[key] = answer
        while len(self._answers) > _KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    def work_ahead(self) -> bool:
        """A step of what further tasks in the space that was asked for last will need; False when nothing is left.

        Callable from one other thread at a time. It changes no answer.
        """
        return self._ahead.step()

    def _read(self, project: str) -> _Known:
        standing = self._standing(project)
        if standing.missing:
            histories.catch_up(self._database, project)
            standing = self._standing(project)
        known = self._known.pop(project, None)
        if known is None or known.standing != standing:
            known = self._read_anew(project, standing, known)
        self._known[project] = known
        while len(self._known) > _KEPT_PROJECTS:
            self._known.popitem(last=False)
        return known

    def _standing(self, project: str) -> Standing:
        with self._database.reading() as tx:
            return fitting.standing(tx, project)

    def _read_anew(self, project: str, standing: Standing, before: _Known | None) -> _Known:
        """Only what is new is read: one more history must not cost as much as a thousand."""
        held = before.histories if before is not None else {}
        with self._database.reading() as tx:
            newest = fitting.heard(tx, project)
            added = histories.read_some(tx, project, [one for one in newest if one not in held])
            parts = fitting.parts(tx, project)
            likeness = likeness_of(fitting.space(tx, project, standing.champion))
        found = held | {one.fingerprint: task_history(one) for one in added}
        fitted = model_of({fingerprint: one.reference for fingerprint, one in found.items()}, parts)
        # One that was deleted in between is gone.
        kept = {one: found[one] for one in newest if one in found}
        starter = starter_histories() if settings().foretune_starter_history else ()
        listed = [*kept.values(), *starter]
        model = fit(
            listed,
            fitted.after(before.model) if before is not None else fitted,
            most_kernels=_MOST_KERNELS,
            most_held_out=_MOST_HELD_OUT,
            likeness=likeness,
        )
        shipped = np.arange(len(listed)) >= len(kept)
        return _Known(standing, kept, listed, [one.task for one in listed], shipped, model, likeness)


def _problem(payload: JsonObject) -> Problem:
    defaults = payload["defaults"]
    return Problem(
        space=Space.from_json(payload["space"]),
        goal=Goal(str(payload["goal"])),
        max_epochs=_number(payload["max_epochs"]),
        max_trials=1,
        seed=0,
        defaults=defaults if isinstance(defaults, dict) else None,
    )


def _for_task(known: _Known, problem: Problem, payload: JsonObject) -> JsonObject:
    task = _task(payload)
    weights = known.likeness.weights(task, known.tasks)
    if task.network is None:
        weights[known.starter] = 0.0
    found, confidence = foresee(problem, task, known.listed, weights, _number(payload["count"]), known.model)
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
        "model": {
            "version": known.standing.champion or 0,
            "experiments": known.standing.histories,
            "trials": known.standing.trials,
        },
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
