"""Optuna as its users tune networks on several cores: TPE, Hyperband, one process a core, a study in Postgres."""

from __future__ import annotations

import logging
import multiprocessing as mp
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType

import optuna
import psycopg
import torch
from optuna.trial import TrialState
from sqlalchemy import make_url
from torch import nn
from torch.nn import functional as F

from benchmarks.service_peer import plain_url
from benchmarks.tuning_task import EPOCHS, NETWORK, TRIALS, Point, Task
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.schedules import SEARCH_BOUNDS, LearningRateSchedule, ScheduleShape
from foretune.spaces import AnyParameter
from workers.datasets.prepare import PreparedData
from workers.networks import DataShape, Dropout, get_network

_STUDY = "wallclock"
_REDUCTION = 3
_DIVERGED = 0.0
"""What a diverged trial is worth: no accuracy at all."""


class OptunaSide:
    """Warm processes, and a database a study. `url`: any database of the server, as SQLAlchemy writes it."""

    def __init__(self, url: str, processes: int) -> None:
        self._url, self._processes = url, processes
        self._pool = ProcessPoolExecutor(processes, mp.get_context("spawn"), initializer=_warm_up)

    def __enter__(self) -> OptunaSide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def tune(self, task: Task, seed: int) -> list[Point]:
        """Every epoch that the processes trained, in the order of time."""
        name = f"optuna_{uuid.uuid4().hex}"
        with psycopg.connect(plain_url(self._url), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = make_url(self._url).set(database=name).render_as_string(hide_password=False)
        optuna.create_study(
            study_name=_STUDY, storage=optuna.storages.RDBStorage(url), direction="maximize", **sampler_and_pruner(seed)
        )
        starts_at = time.time() + 5.0
        jobs = [
            self._pool.submit(_work, url, task, seed, 1000 * seed + number, starts_at)
            for number in range(self._processes)
        ]
        points = [point for job in jobs for point in job.result()]
        return sorted(points, key=lambda point: point.seconds)


def sampler_and_pruner(sampler_seed: int) -> dict[str, optuna.samplers.BaseSampler | optuna.pruners.BasePruner]:
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=_REDUCTION)
    return {"sampler": optuna.samplers.TPESampler(seed=sampler_seed), "pruner": pruner}


def _warm_up() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(logging.WARNING)


def _work(url: str, task: Task, seed: int, sampler_seed: int, starts_at: float) -> list[Point]:
    """One process: joins the study, begins at `starts_at` (time.time) and works until the trials are used up."""
    data = task.load(seed)
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name=_STUDY, storage=storage, **sampler_and_pruner(sampler_seed))  # type: ignore[arg-type]
    points: list[Point] = []

    def objective(trial: optuna.Trial) -> float:
        best = _DIVERGED
        for epoch, value in enumerate(train(suggest(trial), data, 1000 * seed + trial.number), start=1):
            points.append(Point(time.time() - starts_at, value))
            best = max(best, value)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    time.sleep(max(0.0, starts_at - time.time()))
    over = optuna.study.MaxTrialsCallback(TRIALS, states=(TrialState.COMPLETE, TrialState.PRUNED))
    study.optimize(objective, callbacks=[over])
    storage.remove_session()
    storage.engine.dispose()
    return points


def suggest(trial: optuna.Trial) -> JsonObject:
    """A point of the network's default space."""
    chosen: JsonObject = {}
    space = get_network(NETWORK).space
    for parameter in space.parameters:
        if space.is_active(parameter, chosen):
            chosen[parameter.name] = _suggest_one(trial, parameter)
    return chosen


def _suggest_one(trial: optuna.Trial, parameter: AnyParameter) -> JsonValue:
    name = parameter.name
    if isinstance(parameter, Float):
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Int):
        return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Categorical):
        chosen: JsonValue = trial.suggest_categorical(name, list(parameter.choices))  # type: ignore[arg-type]
        return chosen
    assert isinstance(parameter, Schedule)
    shape = {field: trial.suggest_float(field, *bounds) for field, bounds in SEARCH_BOUNDS.items()}
    return ScheduleShape(**shape).to_json()


def train(configuration: JsonObject, data: PreparedData, seed: int) -> Iterator[float]:
    """The validation accuracy of each epoch, by torch.nn and torch.optim as a tutorial has it; ends if it diverges."""
    torch.manual_seed(seed)
    network = get_network(NETWORK)
    values = network.resolve(configuration)
    shape = DataShape(data.task, tuple(data.input_shape), data.output_size)
    model = _with_torch_dropout(network.build(values, shape))
    schedule = LearningRateSchedule(float(str(values["learning_rate"])), ScheduleShape.from_json(values["lr_schedule"]))
    optimizer = _optimizer(model, values)
    batch_size, smoothing = int(str(values["batch_size"])), float(str(values["label_smoothing"]))
    updates_an_epoch = -(-len(data.train_x) // batch_size)
    update = 0
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(data.train_x)).split(batch_size):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate(update, EPOCHS * updates_an_epoch)
            update += 1
            loss = F.cross_entropy(model(data.train_x[batch]), data.train_y[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if not torch.isfinite(loss):
            return
        model.eval()
        with torch.no_grad():
            hits = model(data.val_x).argmax(1) == data.val_y
        yield float(hits.double().mean())


def _optimizer(model: nn.Module, values: JsonObject) -> torch.optim.Optimizer:
    decay = float(str(values["weight_decay"]))
    if values["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), 1.0, momentum=float(str(values["momentum"])), weight_decay=decay)
    kind = torch.optim.Adam if values["optimizer"] == "adam" else torch.optim.AdamW
    betas = (float(str(values["beta1"])), float(str(values["beta2"])))
    return kind(model.parameters(), 1.0, betas=betas, eps=float(str(values["epsilon"])), weight_decay=decay)


def _with_torch_dropout(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, Dropout):
            setattr(module, name, nn.Dropout(child.rate))
        else:
            _with_torch_dropout(child)
    return module
