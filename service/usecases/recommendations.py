"""What to try: given an experiment's own results, or before any trial of a task has run.

An experiment is answered by a desk worker, called with kind `recommend`:

    payload   {"experiment": id, "count": number}
    answer    {"confidence": "none|low|high",
               "items": [{"configuration": {…}, "origin": "…", "predicted": {"median", "low", "high"} | null,
                          "trial": id | null}]}

and, when none answers within a second, by the best trials seen so far. A task on which nothing has run is answered by a
desk worker from the project's histories, called with kind `recommend_task`:

    payload   {"project": id, "space": […], "metric": name | null, "goal": "…", "dataset": id | null,
               "network": name | null, "features": {…}, "defaults": {…} | null, "max_epochs": number, "count": number}
    answer    {"confidence": "none|low|high",
               "items": [{"configuration": {…}, "predicted": {"median", "low", "high"} | null, "evidence": […]}],
               "model": {"version", "experiments", "trials"}}

Without histories, or when none answers in time, it gets the expert's first choice for its network, and after that
points spread evenly over its space.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn, cast

from foretune.errors import FieldError, InvalidExperiment, InvalidRequest, NotFound
from foretune.ids import new_id
from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.quasirandom import r_sequence
from foretune.roles import guess_role
from foretune.schedules import LearningRateSchedule, ScheduleShape
from foretune.spaces import Configuration, Space
from foretune.tunables import Tunables
from foretune.wire import recommendations as wire
from foretune.wire.experiments import ExperimentRequest, LrSchedule, Mode
from foretune.wire.recommendations import RecommendationRequest, Recommendations
from foretune.wire.trials import Prediction
from service.bus import Bus
from service.db import datasets as dataset_rows
from service.db import recommendations as recommendation_rows
from service.db.experiments import StoredExperiment
from service.db.session import Database, Transaction
from service.db.trials import StoredTrial
from service.usecases import datasets, experiments, fitting, histories, networks, submissions

Confidence = Literal["none", "low", "high"]

_DESK_S = 1.0
_TASK_S = 3.0
"""The first answer from a thousand histories takes a desk worker one to three seconds, a later one some hundredths."""
_TRIES_A_POINT = 20
"""How many points of a small space may repeat before it counts as exhausted."""


@dataclass(frozen=True)
class _Task:
    """What there is to recommend for."""

    space: Space
    max_epochs: int
    fixed: JsonObject = field(default_factory=dict)
    tunables: Tunables | None = None
    """The network's; None when only a space is known."""
    metric: str | None = None
    goal: Goal = Goal.MINIMIZE
    dataset_id: str | None = None
    network: str | None = None
    features: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """What the database says about an experiment."""

    experiment: StoredExperiment
    task: _Task
    best: list[StoredTrial]
    model: wire.ModelVersion


async def for_experiment(database: Database, bus: Bus, project: str, experiment_id: str, count: int) -> Recommendations:
    """Up to `count` settings for this experiment's task, the best first. Raises NotFound."""
    known = await asyncio.to_thread(_known, database, project, experiment_id, count)
    answer = await bus.call("recommend", {"experiment": experiment_id, "count": count}, _DESK_S)
    if answer is not None and isinstance(items := answer.get("items"), list):
        objects = [item for item in items if isinstance(item, dict)]
        found = [_of_desk(known, rank, item) for rank, item in enumerate(objects, start=1)]
        return _answer(found, _confidence(answer.get("confidence")), known.model)
    if known.best:
        found = [_best_seen(rank, trial) for rank, trial in enumerate(known.best, start=1)]
        return _answer(found, "low", known.model)
    return _answer(_first_choices(known.task, count), "none", known.model)


async def for_task(database: Database, bus: Bus, project: str, request: RecommendationRequest) -> Recommendations:
    """Up to `request.count` settings for a task on which nothing has run yet.

    Raises InvalidExperiment for a dataset or network that does not exist or that do not fit together, Conflict while
    the dataset is still being read.
    """
    task = await asyncio.to_thread(_read_task, database, project, request)
    answer = await bus.call("recommend_task", _question(project, task, request.count), _TASK_S)
    # The desk says what it has heard. One of an earlier version does not; then it is read after its answer, because it
    # makes histories of what has just ended.
    told = answer.get("model") if answer is not None else None
    if isinstance(told, dict):
        model = wire.ModelVersion.model_validate(told)
    else:
        model = await asyncio.to_thread(_read_model, database, project)
    items = answer.get("items") if answer is not None else None
    if answer is None or not isinstance(items, list) or not items:
        return _answer(_first_choices(task, request.count), "none", model)
    objects = [item for item in items if isinstance(item, dict)]
    found = [_of_histories(task, rank, item) for rank, item in enumerate(objects, start=1)]
    return _answer(found, _confidence(answer.get("confidence")), model)


def _question(project: str, task: _Task, count: int) -> JsonObject:
    default = task.tunables.default_configuration(task.space) if task.tunables is not None else None
    return {
        "project": project,
        "space": task.space.to_json(),
        "metric": task.metric,
        "goal": task.goal.value,
        "dataset": task.dataset_id,
        "network": task.network,
        "features": dict(task.features),
        "defaults": default,
        "max_epochs": task.max_epochs,
        "count": count,
    }


def _known(database: Database, project: str, experiment_id: str, count: int) -> _Known:
    with database.transaction() as tx:
        experiment = experiments.find(tx, project, experiment_id)
        published = {network.name: network for network in networks.all_networks(tx)} if experiment.network else {}
        network = published.get(experiment.network or "")
        tunables = submissions.tunables(network) if network else None
        task = _Task(Space.from_json(experiment.space), experiment.max_epochs, experiment.fixed, tunables)
        best = recommendation_rows.best_trials(tx, experiment_id, experiment.goal, count)
        return _Known(experiment, task, best, _model(tx, project))


def _model(tx: Transaction, project: str) -> wire.ModelVersion:
    """Version 0: no model has been fitted on the histories yet."""
    found = fitting.standing(tx, project)
    return wire.ModelVersion(version=found.champion or 0, experiments=found.histories, trials=found.trials)


def _of_desk(known: _Known, rank: int, item: JsonObject) -> wire.Recommendation:
    configuration, trial = item.get("configuration"), item.get("trial")
    return _recommendation(
        known.task,
        rank,
        configuration if isinstance(configuration, dict) else {},
        str(item.get("origin")),
        predicted=_prediction(item, known.experiment.metric_name),
        trial=trial if isinstance(trial, str) else None,
    )


def _of_histories(task: _Task, rank: int, item: JsonObject) -> wire.Recommendation:
    configuration, evidence = item.get("configuration"), item.get("evidence")
    made = _recommendation(
        task,
        rank,
        configuration if isinstance(configuration, dict) else {},
        "portfolio",
        predicted=_prediction(item, task.metric or ""),
    )
    known = [wire.Evidence.model_validate(one) for one in evidence] if isinstance(evidence, list) else []
    return made.model_copy(update={"evidence": known})


def _prediction(item: JsonObject, metric: str) -> Prediction | None:
    predicted = item.get("predicted")
    return Prediction.model_validate({**predicted, "metric": metric}) if isinstance(predicted, dict) else None


def _best_seen(rank: int, trial: StoredTrial) -> wire.Recommendation:
    return wire.Recommendation(
        rank=rank,
        hyperparameters=trial.hyperparameters,
        lr_schedule=LrSchedule.model_validate(trial.lr_schedule) if trial.lr_schedule else None,
        origin="best_seen",
        trial=trial.id,
    )


def _read_model(database: Database, project: str) -> wire.ModelVersion:
    with database.reading() as tx:
        return _model(tx, project)


def _read_task(database: Database, project: str, request: RecommendationRequest) -> _Task:
    with database.reading() as tx:
        task = _task(tx, project, request)
        if request.dataset is None:
            return replace(task, features=dict(request.features or {}))
        stored = dataset_rows.find(tx, project, request.dataset)
        if stored is None:
            return task
        return replace(task, dataset_id=stored.id, features=histories.dataset_features(stored))


def _task(tx: Transaction, project: str, request: RecommendationRequest) -> _Task:
    """The task without what describes its data."""
    metric = request.metric.name if request.metric else None
    goal = request.metric.goal if request.metric else Goal.MINIMIZE
    if request.network is None:
        if request.dataset is not None:
            _checked_dataset(tx, project, request.dataset)
        return _Task(submissions.read_space(request.space or ()), request.max_epochs, metric=metric, goal=goal)
    tunables = _tunables(tx, request.network)
    if request.dataset is not None:
        # Exactly what a submission of this task would search, refused with the same words.
        managed = ExperimentRequest(
            mode=Mode.MANAGED,
            dataset=request.dataset,
            network=request.network,
            space=request.space,
            metric=request.metric,
        )
        row = submissions.build(tx, project, managed)
        space, metric, goal = Space.from_json(row["space"]), str(row["metric_name"]), Goal(str(row["goal"]))
    else:
        space = _checked_space(tx, tunables, request)
    return _Task(space, request.max_epochs, tunables=tunables, metric=metric, goal=goal, network=request.network)


def _checked_space(tx: Transaction, tunables: Tunables, request: RecommendationRequest) -> Space:
    """What of a network is searched where there is no data set to ask."""
    space = submissions.read_space(request.space or networks.get(tx, str(request.network)).space)
    try:
        tunables.check_space(space, {})
    except InvalidRequest as error:
        faults = [FieldError(("body", "space", *fault.loc), fault.msg) for fault in error.errors]
        raise InvalidExperiment(error.message, errors=faults) from None
    return space


def _tunables(tx: Transaction, network: str) -> Tunables:
    try:
        return submissions.tunables(networks.get(tx, network))
    except NotFound as error:
        _refuse("network", error.message)


def _checked_dataset(tx: Transaction, project: str, name: str) -> None:
    try:
        datasets.get(tx, project, name)
    except NotFound as error:
        _refuse("dataset", error.message)


def _refuse(place: str, message: str) -> NoReturn:
    raise InvalidExperiment(message, errors=[FieldError(("body", place), message)])


def _first_choices(task: _Task, count: int) -> list[wire.Recommendation]:
    found: list[tuple[Configuration, str]] = []
    if task.tunables is not None:
        found.append((task.tunables.default_configuration(task.space), "default"))
    for configuration in _spread(task.space, count):
        if len(found) < count and configuration not in [known for known, _ in found]:
            found.append((configuration, "quasirandom"))
    return [
        _recommendation(task, rank, configuration, origin)
        for rank, (configuration, origin) in enumerate(found, start=1)
    ]


def _spread(space: Space, count: int) -> Iterator[Configuration]:
    for point in r_sequence(space.dimensions, start=0, count=_TRIES_A_POINT * count, seed=0):
        yield space.from_unit(point)


def _recommendation(
    task: _Task,
    rank: int,
    configuration: Configuration,
    origin: str,
    *,
    predicted: Prediction | None = None,
    trial: str | None = None,
) -> wire.Recommendation:
    hyperparameters: JsonObject = {**task.fixed, **configuration}
    schedule_name = task.space.schedule.name if task.space.schedule else "lr_schedule"
    shape = hyperparameters.pop(schedule_name, task.tunables.defaults.get("lr_schedule") if task.tunables else None)
    return wire.Recommendation(
        rank=rank,
        hyperparameters=hyperparameters,
        lr_schedule=_schedule(task, hyperparameters, shape),
        predicted=predicted,
        origin=origin,
        trial=trial,
    )


def _schedule(task: _Task, hyperparameters: JsonObject, shape: JsonValue) -> LrSchedule | None:
    if not isinstance(shape, dict):
        return None
    fixed_peak = next((name for name in task.fixed if guess_role(name) == "learning_rate"), None)
    peak: JsonValue = hyperparameters.get(task.space.with_role("learning_rate") or fixed_peak or "learning_rate")
    if peak is None and task.tunables is not None:
        peak = task.tunables.defaults.get("learning_rate")
    factor = float(peak) if isinstance(peak, int | float) and peak > 0 else 1.0
    schedule = LearningRateSchedule(factor, ScheduleShape.from_json(shape))
    return LrSchedule.model_validate(schedule.to_json(task.max_epochs))


def _confidence(value: JsonValue) -> Confidence:
    return cast(Confidence, value) if value in ("low", "high") else "none"


def _answer(found: list[wire.Recommendation], confidence: Confidence, model: wire.ModelVersion) -> Recommendations:
    return Recommendations(id=new_id("rec"), recommendations=found, confidence=confidence, model=model)
