"""Shifts run in this process against real servers, and hooks that act in the middle of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from sqlalchemy import func, select, update

from foretune.events import Event
from foretune.json_types import JsonObject, JsonValue
from foretune.states import ExperimentState
from foretune.wire import experiments as wire
from foretune.wire.experiments import ExperimentRequest
from foretune.wire.trials import Trial
from service.artifacts import ArtifactStore
from service.bus import Bus
from service.db.session import Database
from service.db.tables import measurements as measurement_table
from service.db.tables import trials as trial_table
from service.db.trials import ring_of
from service.settings import settings
from service.usecases import events, experiments, trials
from tests.service.usecases.conftest import World
from workers.parsing import publish_builtins
from workers.process import WorkerProcess
from workers.shift import Shift
from workers.training import warm_up

if TYPE_CHECKING:
    from tests.conftest import Project

SMALL: JsonObject = {
    "mode": "managed",
    "dataset": "digits",
    "network": "mlp",
    "space": [
        {"name": "learning_rate", "type": "float", "low": 1e-3, "high": 0.1, "log": True},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
    ],
    "fixed": {"width": 16, "depth": 1, "batch_size": 256},
    # With a limit on all epochs, each is reported at once: hooks meet every one.
    "budget": {"max_trials": 3, "max_epochs": 4, "max_total_epochs": 1000},
    "stopping": "none",
    "proposer": "quasirandom",
    "parallelism": 1,
    "seed": 7,
}


@dataclass(frozen=True)
class HookedProcess(WorkerProcess):
    """A worker process that does something when it looks, between epochs, whether it shall stop."""

    at: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    """What to do, once, as soon as its trials have so many measurements."""
    done: set[int] = field(default_factory=set)

    def draining(self) -> bool:
        for count in sorted(set(self.at) - self.done):
            if self._measured() >= count:
                self.done.add(count)
                self.at[count]()
        return super().draining()

    def _measured(self) -> int:
        query = select(func.count()).join_from(measurement_table, trial_table).where(trial_table.c.worker == self.id)
        with self.database.transaction() as tx:
            return int(tx.connection.execute(query).scalar_one())


@dataclass(frozen=True)
class Bench:
    """A project, and workers for it."""

    process: HookedProcess
    project: str

    @property
    def database(self) -> Database:
        return self.process.database

    @property
    def bus(self) -> Bus:
        return self.process.bus

    def submit(self, **changes: JsonValue) -> str:
        """A small managed experiment; `changes` replace fields of its request. Its id."""
        request = ExperimentRequest.model_validate({**SMALL, **changes})
        with self.database.transaction() as tx:
            return experiments.submit(tx, self.bus, self.project, request).id

    def worker(self, name: str, at: Mapping[int, Callable[[], object]] | None = None) -> HookedProcess:
        """Another worker, with hooks of its own."""
        return replace(self.process, id=name, stopping=threading.Event(), at=at or {}, done=set())

    def stopped_at(self, epochs: int, name: str = "wrk_first") -> HookedProcess:
        """A worker that is asked to stop as soon as its trials have so many measurements."""
        worker = self.worker(name)
        return replace(worker, at={epochs: worker.stopping.set})

    def of_project(self, project: str) -> Bench:
        """The same workers, for another project's client."""
        return replace(self, project=project)

    def work(self, experiment_id: str, worker: WorkerProcess | None = None) -> None:
        """One shift. Raises what it raised."""
        self.in_thread(lambda: Shift(worker or self.process, experiment_id).run())

    def in_thread(self, work: Callable[[], None]) -> None:
        """Works in a thread of its own, as a process of its own would. Raises what it raised."""
        raised: list[BaseException] = []

        def run() -> None:
            torch.set_num_threads(1)
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again below
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]

    def steer(self, verb: str, experiment_id: str) -> wire.Experiment:
        with self.database.transaction() as tx:
            steered: wire.Experiment = getattr(experiments, verb)(tx, self.bus, self.project, experiment_id)
            return steered

    def experiment(self, experiment_id: str) -> wire.Experiment:
        with self.database.transaction() as tx:
            return experiments.get(tx, self.project, experiment_id)

    def trials(self, experiment_id: str) -> list[Trial]:
        with self.database.transaction() as tx:
            return trials.list_page(tx, self.project, experiment_id, state=None, limit=1000, cursor=None).items

    def curves(self, experiment_id: str) -> list[list[tuple[int, float | None, dict[str, float]]]]:
        """What every trial measured, without times, by number."""
        with self.database.transaction() as tx:
            return [
                [
                    (one.epoch, one.value, one.metrics)
                    for one in trials.measurements_page(tx, self.project, trial.id, limit=1000, cursor=None).items
                ]
                for trial in self.trials(experiment_id)
            ]

    def events(self, experiment_id: str) -> list[Event]:
        with self.database.transaction() as tx:
            return events.page_after(tx, self.project, experiment_id, 0, 10_000).events

    def let_leases_run_out(self) -> None:
        """As if every worker had been silent for an hour."""
        with self.database.transaction() as tx:
            statement = update(trial_table).where(trial_table.c.lease_until.is_not(None))
            tx.connection.execute(statement.values(lease_until=func.now() - timedelta(hours=1)))

    def checkpoints_known(self) -> set[str]:
        """The artifacts that trials refer to."""
        query = select(trial_table.c.checkpoint).where(trial_table.c.checkpoint.is_not(None))
        with self.database.transaction() as tx:
            return {str(one["artifact"]) for kept in tx.connection.execute(query).scalars() for one in ring_of(kept)}


@pytest.fixture
def world(database: Database, bus: Bus, project: Project) -> World:
    return World(database, bus, project.id)


@pytest.fixture
def process(database: Database, bus: Bus, artifacts: ArtifactStore) -> WorkerProcess:
    return WorkerProcess("wrk_test", database, bus, artifacts)


@pytest.fixture
def bench(database: Database, bus: Bus, artifacts: ArtifactStore, project: Project) -> Bench:
    """Checkpoints are kept after every epoch; networks and built-in data sets are published."""
    process = HookedProcess("wrk_bench", database, bus, artifacts)
    warm_up(process)
    publish_builtins(process)
    return Bench(process, project.id)


@pytest.fixture(autouse=True)
def _every_epoch_is_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "environment" not in request.fixturenames:
        return
    request.getfixturevalue("environment")
    monkeypatch.setenv("FORETUNE_CHECKPOINT_EVERY_S", "0")
    settings.cache_clear()


@pytest.fixture
def checkpoint_files(tmp_path: Path) -> Callable[[], set[str]]:
    """The keys of the checkpoints that lie in the store."""

    def keys() -> set[str]:
        root = tmp_path / "artifacts"
        return {str(path.relative_to(root)) for path in root.glob("checkpoints/**/*") if path.is_file()}

    return keys


@pytest.fixture(scope="module")
def remembered() -> dict[str, list[object]]:
    return {}


@pytest.fixture
def undisturbed(bench: Bench, remembered: dict[str, list[object]]) -> list[object]:
    """The curves of an experiment that nothing happened to; trained once for all tests."""
    if not remembered:
        experiment_id = bench.submit()
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is ExperimentState.COMPLETED
        remembered["curves"] = list(bench.curves(experiment_id))
    return remembered["curves"]
