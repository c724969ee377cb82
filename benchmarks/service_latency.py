"""How long single things take: joining, dispatching, hearing of a measurement, a first result, a start."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from benchmarks.service_ours import ForetuneService, Histories
from benchmarks.service_peer import STUDY, OptunaService, distributions
from benchmarks.service_task import final_loss
from foretune.client import Client
from foretune.events import EventType
from metalearner import Effort, warming
from service.db.session import Database
from service.embedded.stack import StackOptions, start
from service.garbage import exempt_what_is_there
from workers.proposals import Proposals

_PAUSE_S = 0.01
"""Between two measurements whose way to a reader is timed."""


def join_of_desk(database_url: str, service: ForetuneService) -> float:
    """Seconds until a desk that has never heard of the experiment has its first proposal."""
    # As a desk does when it starts.
    warming.warm_up()
    exempt_what_is_there()
    started = time.perf_counter()
    database = Database(database_url, pool_size=1)
    try:
        Proposals(database).propose(service.experiment_id, 1, Effort.FAST)
        return time.perf_counter() - started
    finally:
        database.close()


def join_of_client(service: ForetuneService) -> float:
    """Seconds until a client that has just connected holds its first trial; the desk knows the experiment."""
    started = time.perf_counter()
    with Client(service.url, service.key) as client:
        trial = client.experiments.get(service.experiment_id).ask()
        joined_s = time.perf_counter() - started
        trial.complete(final_loss(trial.hyperparameters))
    return joined_s


def join_of_optuna(service: OptunaService) -> float:
    """Seconds until a process that has imported Optuna holds its first trial."""
    started = time.perf_counter()
    storage = optuna.storages.RDBStorage(service.url)
    trial = optuna.load_study(study_name=STUDY, storage=storage).ask(distributions())
    joined_s = time.perf_counter() - started
    assert len(trial.params) == len(distributions())
    storage.remove_session()
    storage.engine.dispose()
    return joined_s


def external_overhead(histories: Histories, trials: int) -> float:
    """Seconds a trial of a loop that asks and tells and does nothing between, one client, from an empty experiment."""
    session = histories.experiment(0, 0).connect()
    try:
        session.one_trial(0)
        started = time.perf_counter()
        for _ in range(trials):
            session.one_trial(0)
        return (time.perf_counter() - started) / trials
    finally:
        session.close()


def managed_overhead(client: Client, trials: int) -> float:
    """Seconds a trial that a train worker spends on anything but the trial's own training: tiny trials of one epoch."""
    experiment = client.experiments.create(
        mode="managed",
        dataset="iris",
        network="mlp",
        budget={"max_trials": trials, "max_epochs": 1},
        stopping="none",
        parallelism=1,
    )
    for _ in client.stream(experiment.id):
        pass
    info = experiment.refresh().info
    if info.started_at is None or info.finished_at is None or info.progress.trials.get("COMPLETED", 0) < trials / 2:
        raise RuntimeError(f"{experiment.id} is {info.state}: {info.reason}; {info.progress.trials}")
    training_s = sum(trial.seconds for trial in experiment.list_trials())
    return ((info.finished_at - info.started_at).total_seconds() - training_s) / trials


def measurement_to_reader(histories: Histories, service_clients: Client, measurements: int) -> list[float]:
    """Seconds from sending each measurement to its event at a client that streams; both in this process."""
    service = histories.experiment(0, 0)
    experiment = service_clients.experiments.get(service.experiment_id)
    reader = _Reader(service, measurements)
    reader.start()
    latencies: list[float] = []
    sent: list[float] = []
    while len(sent) < measurements:
        with experiment.ask() as trial:
            for epoch in range(1, 6):
                sent.append(time.perf_counter())
                trial.report(epoch, 1.0 / epoch)
                time.sleep(_PAUSE_S)
    reader.join(30.0)
    latencies = [arrived - left for left, arrived in zip(sent, reader.arrived, strict=False)]
    if len(latencies) < measurements:
        raise RuntimeError(f"only {len(latencies)} of {measurements} measurements came to the reader")
    return latencies[:measurements]


@dataclass
class _Reader:
    """A client that streams an experiment in a thread of its own until it has seen enough measurements."""

    service: ForetuneService
    enough: int
    arrived: list[float] = field(default_factory=list)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with Client(self.service.url, self.service.key) as client:
            for event in client.stream(self.service.experiment_id):
                if event.type is EventType.TRIAL_MEASUREMENT:
                    self.arrived.append(time.perf_counter())
                    if len(self.arrived) >= self.enough:
                        return


def submit_to_first_measurement(client: Client) -> float:
    """Seconds from submitting a managed experiment to reading its first measurement."""
    started = time.perf_counter()
    experiment = client.experiments.create(
        mode="managed", dataset="digits", network="mlp", budget={"max_trials": 4, "max_epochs": 3}
    )
    first_s = 0.0
    for event in client.stream(experiment.id):
        if event.type is EventType.TRIAL_MEASUREMENT and not first_s:
            first_s = time.perf_counter() - started
    if not first_s:
        raise RuntimeError(f"{experiment.id} ended without a measurement: {experiment.refresh().info.reason}")
    return first_s


def ready_times(repeats: int) -> Iterator[tuple[float, float]]:
    """Seconds until a stack serves, on an empty folder and then on the same one."""
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="ft-") as folder:
            options = StackOptions(data_dir=Path(folder) / "data", port=0, train_workers=1)
            with start(options) as stack:
                empty_s = stack.ready_after_s
            with start(options) as stack:
                yield empty_s, stack.ready_after_s
