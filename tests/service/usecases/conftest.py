"""One project in one database, and short words for what its clients and workers do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeVar

import pytest
import redis
from sqlalchemy import func, select, update

from foretune.errors import ForetuneError
from foretune.events import Event
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Float, Int, Schedule
from foretune.wire import experiments as wire
from foretune.wire.datasets import Network, Task
from foretune.wire.experiments import ExperimentRequest
from foretune.wire.trials import (
    CompleteRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    MeasurementsAnswer,
    MeasurementsRequest,
    Suggestion,
    SuggestionRequest,
    Trial,
)
from service.bus import Bus
from service.db.ledger import Ledger
from service.db.ledger_batches import LedgerBatches
from service.db.session import Database
from service.db.tables import experiments as experiment_table
from service.db.tables import trials as trial_table
from service.usecases import datasets, events, experiments, networks, reports, suggestions, trials
from service.usecases.datasets import ParsedDataset

if TYPE_CHECKING:
    from tests.conftest import Project

Answer = TypeVar("Answer")
SPACE: list[JsonValue] = [
    {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 4},
    {"name": "lr_schedule", "type": "schedule"},
]


@lru_cache(maxsize=1)
def event_loop() -> asyncio.AbstractEventLoop:
    """One that runs in a thread of its own until the tests end."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="event-loop", daemon=True).start()
    return loop


@dataclass(frozen=True)
class World:
    """What a client of the project can do, without HTTP."""

    database: Database
    bus: Bus
    project: str

    def run(self, work: Coroutine[object, object, Answer]) -> Answer:
        """On the event loop, from any thread, as an API process has many calls on one loop."""
        return asyncio.run_coroutine_threadsafe(work, event_loop()).result()

    @cached_property
    def ledgers(self) -> LedgerBatches:
        """What an API process would hold."""
        return LedgerBatches(self.database, ThreadPoolExecutor(2, "api"), self.bus.publish)

    def submit(self, **changes: JsonValue) -> wire.Experiment:
        """An external experiment; `changes` replace fields of its request."""
        request: JsonObject = {
            "mode": "external",
            "metric": {"name": "score", "goal": "maximize"},
            "space": SPACE,
            "budget": {"max_trials": 4, "max_epochs": 3},
            "stopping": "none",
            **changes,
        }
        with self.database.transaction() as tx:
            return experiments.submit(tx, self.bus, self.project, ExperimentRequest.model_validate(request))

    def submit_managed(self, **changes: JsonValue) -> wire.Experiment:
        """An experiment that workers would train; needs the fixture `published`."""
        request = ExperimentRequest.model_validate(
            {"mode": "managed", "dataset": "digits", "network": "tiny", **changes}
        )
        with self.database.transaction() as tx:
            return experiments.submit(tx, self.bus, self.project, request)

    def ask(self, experiment_id: str, count: int = 1, wait_s: float = 0.0) -> list[Suggestion]:
        request = SuggestionRequest(count=count, wait_seconds=wait_s)
        asked = suggestions.suggest(self.database, self.ledgers, self.bus, self.project, experiment_id, request)
        return list(self.run(asked).trials)

    def measure(self, trial_id: str, lease: str, values: Mapping[int, float | None]) -> MeasurementsAnswer:
        """Reports `{epoch: value}`, a second each."""
        reported = [{"epoch": epoch, "value": value, "seconds": 1.0} for epoch, value in values.items()]
        request = MeasurementsRequest.model_validate({"lease": lease, "measurements": reported})
        return self.report(trial_id, lambda ledger: reports.record(ledger, self.bus, trial_id, request))

    def complete(self, trial_id: str, lease: str, **fields: JsonValue) -> Trial:
        request = CompleteRequest.model_validate({"lease": lease, **fields})
        return self.report(trial_id, lambda ledger: reports.complete(ledger, trial_id, request))

    def beat(self, trial_id: str, lease: str) -> HeartbeatAnswer:
        request = HeartbeatRequest(lease=lease)
        return self.report(trial_id, lambda ledger: reports.heartbeat(ledger, trial_id, request))

    def report(self, trial_id: str, work: Callable[[Ledger], Answer]) -> Answer:
        """What a client tells of a trial."""
        return self.run(self.ledgers.on_trial(self.project, trial_id, work))

    def experiment(self, experiment_id: str) -> wire.Experiment:
        with self.database.transaction() as tx:
            return experiments.get(tx, self.project, experiment_id)

    def trial(self, trial_id: str) -> Trial:
        with self.database.transaction() as tx:
            return trials.get(tx, self.project, trial_id)

    def trials(self, experiment_id: str) -> Sequence[Trial]:
        with self.database.transaction() as tx:
            return trials.list_page(tx, self.project, experiment_id, state=None, limit=1000, cursor=None).items

    def events(self, experiment_id: str, after: int = 0) -> list[Event]:
        with self.database.transaction() as tx:
            return events.page_after(tx, self.project, experiment_id, after, 10_000).events

    def let_lease_run_out(self, trial_id: str) -> None:
        """As if nobody had given a sign of life for an hour."""
        with self.database.transaction() as tx:
            tx.connection.execute(
                update(trial_table)
                .where(trial_table.c.id == trial_id)
                .values(lease_until=func.now() - timedelta(hours=1))
            )

    def let_time_pass(self, experiment_id: str, seconds: float) -> None:
        """As if the experiment had started, and was last rung for, so much earlier."""
        moved = {name: experiment_table.c[name] - timedelta(seconds=seconds) for name in ("started_at", "rung_at")}
        with self.database.transaction() as tx:
            tx.connection.execute(update(experiment_table).where(experiment_table.c.id == experiment_id).values(moved))

    @contextmanager
    def desk(self, answer: Callable[[str, JsonObject], JsonObject]) -> Iterator[None]:
        """A desk worker that answers every call with `answer(kind, payload)`."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                for call in self.bus.take(0.05, 1):
                    try:
                        reply: JsonObject | ForetuneError = answer(call.kind, call.payload)
                    except ForetuneError as error:
                        reply = error
                    self.bus.answer(call, reply)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def lose_messages(self) -> None:
        """As a restart of Redis without its file does."""
        with redis.Redis.from_url(self.bus.redis_url) as connection:
            connection.flushall()

    def column(self, experiment_id: str, name: str) -> object:
        """A column of the experiment's row."""
        query = select(experiment_table.c[name]).where(experiment_table.c.id == experiment_id)
        with self.database.transaction() as tx:
            return tx.connection.execute(query).scalar_one()


NETWORK = Network(
    name="tiny",
    description="For tests: two hyperparameters and a schedule",
    tasks=[Task.CLASSIFICATION],
    views=["tabular"],
    space=[
        Float("learning_rate", 1e-3, 1.0, log=True),
        Int("width", 16, 64, log=True),
        Float("label_smoothing", 0.0, 0.2),
        Schedule(),
    ],
    limits=[
        Float("learning_rate", 1e-12, 1e12),
        Int("width", 1, 1024),
        Float("label_smoothing", 0.0, 0.99),
        Schedule(),
    ],
    defaults={
        "learning_rate": 0.01,
        "width": 32,
        "label_smoothing": 0.0,
        "lr_schedule": {
            "warmup_fraction": 0.1,
            "plateau_fraction": 0.0,
            "decay_exponent": 1.0,
            "final_fraction": 0.0,
        },
    },
    metrics={"classification": ["val_loss", "val_accuracy"]},
)
DIGITS = ParsedDataset(
    artifact="datasets/builtin/digits.safetensors",
    task=Task.CLASSIFICATION,
    modality="image",
    views=["image", "tabular"],
    rows=1797,
    features=64,
    classes=10,
    target="digit",
    meta_features={"rows": 1797.0},
)
HOUSES = replace(DIGITS, artifact="h", task=Task.REGRESSION, modality="tabular", views=["tabular"], classes=None)
WORDS = replace(DIGITS, artifact="w", modality="text", views=["text"])


@pytest.fixture
def published(database: Database) -> None:
    """A network and three data sets, as workers publish them."""
    with database.transaction() as tx:
        networks.publish(tx, [NETWORK])
        for name, parsed in (("digits", DIGITS), ("houses", HOUSES), ("words", WORDS)):
            datasets.register_builtin(tx, name, parsed, sha256=name, size_bytes=1)


@pytest.fixture
def world(database: Database, bus: Bus, project: Project) -> World:
    return World(database, bus, project.id)


@pytest.fixture
def strangers(database: Database, bus: Bus, other_project: Project) -> World:
    """Another project in the same database."""
    return World(database, bus, other_project.id)
