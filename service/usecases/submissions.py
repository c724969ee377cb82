"""From a request to a complete experiment: defaults of the network filled in, every part checked against the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from foretune.errors import FieldError, InvalidExperiment, InvalidRequest, InvalidSpace, NotFound
from foretune.ids import new_id
from foretune.json_types import JsonObject
from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int, Parameter
from foretune.roles import guess_role
from foretune.schedules import ScheduleShape
from foretune.spaces import AnyParameter, Space
from foretune.states import ExperimentState
from foretune.tunables import Tunables
from foretune.wire import datasets as wire_datasets
from foretune.wire.experiments import ExperimentRequest, Mode
from service.db import experiments as experiment_rows
from service.db.session import Transaction
from service.usecases import datasets, networks

_GOALS_DOWN = ("loss", "error", "mse", "mae", "rmse", "perplexity", "bits")
_BETTER = {Goal.MAXIMIZE: "higher", Goal.MINIMIZE: "lower"}
_GOALS_UP = ("accuracy", "auc", "f1", "r2", "precision", "recall", "score", "reward", "return")


@dataclass(frozen=True)
class _Parts:
    """What the mode decides."""

    space: Space
    fixed: JsonObject
    metric_name: str
    goal: Goal
    dataset: wire_datasets.Dataset | None = None
    network: str | None = None


def build(tx: Transaction, project: str, request: ExperimentRequest) -> dict[str, object]:
    """The row of the experiment.

    Raises InvalidExperiment or InvalidSpace (what, where, what would be right); a dataset or network that does not
    exist is a fault of the request, and the message lists what there is.
    """
    parts = _managed(tx, project, request) if request.mode is Mode.MANAGED else _external(request)
    priors = request.priors if isinstance(request.priors, str) else _known_priors(tx, project, request.priors)
    name = request.name or (f"{parts.dataset.name}-{parts.network}" if parts.dataset else "experiment")
    budget = request.budget
    return {
        "id": new_id("exp"),
        "project_id": project,
        "name": name,
        "mode": request.mode.value,
        "state": ExperimentState.QUEUED.value,
        "dataset_id": parts.dataset.id if parts.dataset else None,
        "dataset_name": parts.dataset.name if parts.dataset else None,
        "network": parts.network,
        "metric_name": parts.metric_name,
        "goal": parts.goal.value,
        "space": parts.space.to_json(),
        "fixed": parts.fixed,
        "max_trials": budget.max_trials,
        "max_epochs": budget.max_epochs,
        "max_total_epochs": budget.max_total_epochs,
        "max_seconds": budget.max_seconds,
        "target": budget.target,
        "stopping": request.stopping.value,
        "proposer": request.proposer.value,
        "priors": priors,
        "parallelism": request.parallelism,
        "seed": request.seed,
        "share_history": request.share_history,
        "labels": request.labels,
        "features": request.features,
        "created_at": datetime.now(UTC),
    }


def _external(request: ExperimentRequest) -> _Parts:
    for field in ("dataset", "network"):
        if getattr(request, field) is not None:
            _refuse(field, f"an external experiment has no {field}: describe the task with `features`")
    if request.space is None:
        _refuse("space", "an external experiment needs a space")
    if request.metric is None:
        _refuse("metric", 'an external experiment needs a metric, such as {"name": "val_loss", "goal": "minimize"}')
    if "budget" not in request.model_fields_set:
        _refuse("budget", 'an external experiment needs a budget, such as {"max_trials": 50}')
    space = read_space(request.space)
    check_schedule(space, request.fixed)
    return _Parts(_settled(space, request.fixed), request.fixed, request.metric.name, request.metric.goal)


def _managed(tx: Transaction, project: str, request: ExperimentRequest) -> _Parts:
    for field in ("dataset", "network"):
        if getattr(request, field) is None:
            _refuse(field, f"a managed experiment needs a {field}")
    if request.features:
        _refuse("features", "a managed experiment takes its features from the dataset: leave them out")
    dataset = _dataset(tx, project, str(request.dataset))
    network = _network(tx, str(request.network))
    if dataset.task not in network.tasks:
        _refuse(
            "network",
            f"network {network.name!r} does {', '.join(network.tasks)}; dataset {dataset.name!r} is {dataset.task}",
        )
    if not set(network.views) & set(dataset.views):
        _refuse(
            "network",
            f"network {network.name!r} reads {' or '.join(network.views)} data; dataset {dataset.name!r} can be read "
            f"as {' or '.join(dataset.views)}",
        )
    space = read_space(request.space) if request.space is not None else _default_space(network, dataset.task)
    _check_tunables(network, space, request.fixed)
    check_schedule(space, request.fixed)
    names = network.metrics[dataset.task.value]
    name = request.metric.name if request.metric else names[0]
    if name not in names:
        _refuse("metric", f"network {network.name!r} reports {', '.join(names)} here, not {name!r}")
    goal = usual_goal(name)
    if request.metric is not None and request.metric.goal is not goal and _is_known(name):
        message = f"{name} is better when it is {_BETTER[goal]}: its goal is {goal}, not {request.metric.goal}"
        raise InvalidExperiment(message, errors=[FieldError(("body", "metric", "goal"), message)])
    goal = request.metric.goal if request.metric else goal
    fixed = _with_peak(network, space, request.fixed)
    settled = _settled(space, fixed, chosen=request.space is not None)
    return _Parts(settled, fixed, name, goal, dataset, network.name)


def usual_goal(metric: str) -> Goal:
    """Which way is better, as the metric's name says."""
    return Goal.MAXIMIZE if any(word in metric for word in _GOALS_UP) else Goal.MINIMIZE


def _is_known(metric: str) -> bool:
    """Whether the metric's name says which way is better."""
    return any(word in metric for word in (*_GOALS_UP, *_GOALS_DOWN))


def _dataset(tx: Transaction, project: str, name: str) -> wire_datasets.Dataset:
    try:
        return datasets.get(tx, project, name)
    except NotFound as error:
        _refuse("dataset", error.message)


def _network(tx: Transaction, name: str) -> wire_datasets.Network:
    known = {network.name: network for network in networks.all_networks(tx)}
    if name not in known:
        _refuse("network", f"there is no network {name!r}; there are {', '.join(sorted(known)) or 'none yet'}")
    return known[name]


def tunables(network: wire_datasets.Network) -> Tunables:
    """What of a published network may be set."""
    return Tunables(network.name, {limit.name: limit for limit in network.limits}, network.defaults)


def _default_space(network: wire_datasets.Network, task: wire_datasets.Task) -> Space:
    """The network's own space, without what means nothing for the task."""
    space = Space(tuple(network.space))
    if task is wire_datasets.Task.CLASSIFICATION or "label_smoothing" not in space.by_name:
        return space
    return space.without(["label_smoothing"], {})


def _check_tunables(network: wire_datasets.Network, space: Space, fixed: JsonObject) -> None:
    """What a network does not know it would silently ignore: refuse it."""
    known = tunables(network)
    try:
        field = "fixed"
        known.check_fixed(fixed)
        field = "space"
        known.check_space(space, fixed)
    except InvalidRequest as error:
        faults = [FieldError(("body", field, *fault.loc), fault.msg) for fault in error.errors]
        raise InvalidExperiment(error.message, errors=faults) from None


def read_space(parameters: Sequence[Parameter]) -> Space:
    """The space of a request. Raises InvalidSpace, its faults located in the body."""
    try:
        return Space(tuple(parameters))
    except InvalidSpace as error:
        faults = [FieldError(("body", "space", *fault.loc), fault.msg) for fault in error.errors]
        raise InvalidSpace(error.message, errors=faults) from None


def _settled(space: Space, fixed: JsonObject, *, chosen: bool = True) -> Space:
    """The space without what is fixed; a fixed value decides the conditions that ask for it.

    In a space that the client has `chosen` a fixed value is one of the choices; in a network's own one, anything that
    the network can be trained with.
    """
    faults = []
    for name, value in fixed.items():
        parameter = space.by_name.get(name)
        if parameter is not None and parameter.type == "schedule":
            ScheduleShape.from_json(value)
        elif (
            chosen
            and parameter is not None
            and parameter.type == "categorical"
            and (problem := parameter.problem_with(value))
        ):
            faults.append(FieldError(("body", "fixed", name), f"{name} {problem}"))
    if faults:
        raise InvalidExperiment(faults[0].msg, errors=faults)
    if set(space.by_name) <= set(fixed):
        _refuse("fixed", "every hyperparameter is fixed: leave at least one to search")
    return space.without(fixed, fixed)


def _with_peak(network: wire_datasets.Network, space: Space, fixed: JsonObject) -> JsonObject:
    """What is fixed, with the network's own learning rate where a schedule has no other peak: trials say what it is."""
    scheduled = space.schedule is not None or "lr_schedule" in fixed
    known = space.with_role("learning_rate") or any(guess_role(name) == "learning_rate" for name in fixed)
    if not scheduled or known or "learning_rate" not in network.defaults:
        return fixed
    return {**fixed, "learning_rate": network.defaults["learning_rate"]}


def check_schedule(space: Space, fixed: JsonObject) -> None:
    """Raises InvalidExperiment or InvalidSchedule unless each trial gets a schedule that there is, if it gets any.

    A schedule needs a peak: whatever has the role of the learning rate must be positive everywhere.
    """
    for name, value in fixed.items():
        if name == "lr_schedule" and isinstance(value, dict):
            ScheduleShape.from_json(value)
        elif space.schedule is not None and name == space.schedule.name != "lr_schedule":
            message = f"a fixed schedule is called lr_schedule, not {name}"
            raise InvalidExperiment(message, errors=[FieldError(("body", "fixed", name), message)])
    if space.schedule is None and "lr_schedule" not in fixed:
        return
    for name, value in fixed.items():
        if guess_role(name) == "learning_rate" and not _is_positive(value):
            message = f"{name} is the peak of the schedule: it must be a number greater than 0, not {value!r}"
            raise InvalidExperiment(message, errors=[FieldError(("body", "fixed", name), message)])
    for position, parameter in enumerate(space.parameters):
        searched = parameter.name not in fixed and space.role_of(parameter.name) == "learning_rate"
        if searched and not all(_is_positive(value) for value in _extremes(parameter)):
            message = f"{parameter.name} is the peak of the schedule: it must be greater than 0 everywhere"
            raise InvalidExperiment(message, errors=[FieldError(("body", "space", position), message)])


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _extremes(parameter: AnyParameter) -> Sequence[object]:
    match parameter:
        case Float() | Int():
            return (parameter.low,)
        case Categorical():
            return parameter.choices
    return (None,)


def _known_priors(tx: Transaction, project: str, ids: list[str]) -> list[str]:
    for position, experiment_id in enumerate(ids):
        if experiment_rows.find(tx, project, experiment_id) is None:
            message = f"there is no experiment {experiment_id!r} in this project"
            raise InvalidExperiment(message, errors=[FieldError(("body", "priors", position), message)])
    return ids


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidExperiment(message, errors=[FieldError(("body", field), message)])
