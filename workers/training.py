"""What a train worker keeps warm: the device, the networks, prepared data, engines between shifts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import structlog

from foretune.errors import NotFound
from foretune.metrics import Goal
from foretune.spaces import Space
from foretune.wire import datasets as wire
from service.settings import settings
from service.usecases import networks as network_usecase
from service.usecases import shifts
from service.usecases.proposals import StoredExperiment, StoredTrial
from workers.datasets import dataset as canonical
from workers.datasets.prepare import PreparedData, prepare, views
from workers.engine import METRICS, Precision, TrialSpec, choose_device, trial_spec
from workers.networks import Network, get_network, networks
from workers.process import WorkerProcess
from workers.seeds import trial_seed

_KEPT_DATA = 4

_log = structlog.get_logger(__name__)


def warm_up(process: WorkerProcess) -> str:
    """Imports torch (by importing this module), chooses the device and publishes what can be trained. The device."""
    device = device_name()
    with process.database.transaction() as tx:
        network_usecase.publish(tx, [describe(network) for network in networks().values()])
    _log.info("worker_ready", device=device)
    return device


def device_name() -> str:
    return settings().foretune_device or str(choose_device())


def precision() -> Precision | None:
    """That of new trials; None leaves it to the engine."""
    chosen = settings().foretune_precision
    return None if chosen == "auto" else chosen


def describe(network: Network) -> wire.Network:
    """A network as clients see it."""
    return wire.Network(
        name=network.name,
        description=network.description,
        tasks=list(network.tasks),
        views=list(network.views),
        space=list(network.space.parameters),
        limits=list(network.limits.values()),
        defaults=dict(network.defaults),
        metrics={task.value: [name for name in METRICS[task] if name != "learning_rate"] for task in network.tasks},
    )


@dataclass(frozen=True)
class TrainingTask:
    """What an experiment trains: the network, and the data as it reads them."""

    network: Network
    data: PreparedData
    metric: str
    goal: Goal

    def spec(self, experiment: StoredExperiment, trial: StoredTrial) -> TrialSpec:
        """The trial as the engine trains it. Raises InvalidConfiguration or InvalidSchedule."""
        return trial_spec(
            self.network,
            trial.id,
            {**experiment.fixed, **trial.configuration},
            max_epochs=trial.max_epochs,
            seed=trial_seed(experiment.seed, trial.number),
            space=Space.from_json(experiment.space),
        )


class TrainingTasks:
    """Prepared data of the experiments that this process worked on last."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._kept: OrderedDict[tuple[str, str, int], PreparedData] = OrderedDict()

    def of(self, experiment: StoredExperiment) -> TrainingTask:
        """Loads and prepares, or finds it warm. Raises NotFound, InvalidExperiment, Unavailable."""
        network = get_network(str(experiment.network))
        if experiment.dataset_id is None:
            raise NotFound(f"dataset {experiment.dataset_name!r} was deleted")
        key = (experiment.dataset_id, network.name, experiment.seed)
        if key not in self._kept:
            self._kept[key] = self._prepare(experiment.dataset_id, network, experiment.seed)
            while len(self._kept) > _KEPT_DATA:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return TrainingTask(network, self._kept[key], experiment.metric_name, experiment.goal)

    def _prepare(self, dataset_id: str, network: Network, seed: int) -> PreparedData:
        with self._process.database.transaction() as tx:
            artifact = shifts.dataset_artifact(tx, dataset_id)
        with self._process.artifacts.local_copy(artifact) as path:
            dataset = canonical.load(path)
        view = network.view_for(views(dataset))
        if view is None:
            raise NotFound(f"network {network.name!r} cannot read dataset {dataset.name!r}")
        return prepare(dataset, seed, view)
