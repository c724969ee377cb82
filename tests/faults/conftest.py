"""The live stack, jobs on it that last long enough to be disturbed, and the processes to disturb them with."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from foretune.client import Client, Experiment
from foretune.events import Event, EventType
from foretune.json_types import JsonObject, JsonValue
from service.embedded.stack import RunningStack
from service.embedded.supervisor import ChildState

JOB: JsonObject = {
    "mode": "managed",
    "dataset": "digits",
    "network": "mlp",
    "space": [
        {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 0.02, "log": True},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
    ],
    "fixed": {"width": 256, "depth": 3, "batch_size": 8},
    "budget": {"max_trials": 2, "max_epochs": 15},
    "stopping": "none",
    "proposer": "quasirandom",
    "parallelism": 1,
    "seed": 3,
}
EXTERNAL: JsonObject = {
    "mode": "external",
    "space": [{"name": "x", "type": "float", "low": 0.0, "high": 1.0}],
    "metric": {"name": "score", "goal": "maximize"},
    "budget": {"max_trials": 100_000, "max_epochs": 10},
    "stopping": "none",
}
Curve = list[tuple[int, float | None]]


@dataclass(frozen=True)
class Live:
    """The stack under test."""

    stack: RunningStack
    client: Client
    http: httpx.Client
    """Without retries: what the service says, as it says it."""

    def submit(self, **changes: JsonValue) -> Experiment:
        """A managed experiment; `changes` replace fields of its request."""
        return self.client.experiments.create(_changed(JOB, changes))

    def external(self, **changes: JsonValue) -> Experiment:
        return self.client.experiments.create(_changed(EXTERNAL, changes))

    def curves(self, experiment: Experiment) -> list[Curve]:
        """(epoch, value) of every trial, by number."""
        return [
            [(one.epoch, one.value) for one in self.client.trials.measurements(trial.id)]
            for trial in experiment.list_trials()
        ]

    def pid(self, name: str) -> int:
        """The process of the stack with this name."""
        pid = self.stack.supervisor.pid(name)
        assert pid is not None, f"{name} does not run"
        return pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid(name), number)

    def stop(self, *names: str) -> None:
        self.stack.supervisor.stop(*names)

    def resume(self, *names: str) -> None:
        self.stack.supervisor.resume(*names)

    def pool_pid(self, worker: str) -> int:
        """The pool process of a train worker: the one in which torch runs."""
        (child,) = children(self.pid(worker))
        return child

    def sql(self, statement: str, **values: object) -> None:
        engine = create_engine(self.stack.plan.database_url)
        with engine.begin() as connection:
            connection.execute(text(statement), values)
        engine.dispose()

    def artifacts_of(self, experiment_id: str) -> list[Path]:
        return list(self.stack.plan.layout.artifacts.glob(f"checkpoints/{experiment_id}/**/*"))

    def wait(self, seconds: float) -> None:
        """Between two looks."""
        time.sleep(seconds)

    def wait_until_ready(self, within_s: float = 60.0) -> None:
        """Every part answers and every process runs."""
        deadline = time.monotonic() + within_s
        supervisor = self.stack.supervisor
        while True:
            running = all(supervisor.state(name) is ChildState.READY for name in supervisor.names())
            try:
                answer = self.http.get("/readyz", timeout=5)
                if running and answer.status_code == 200:
                    return
                said = answer.text
            except httpx.HTTPError as error:
                said = repr(error)
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def _changed(body: JsonObject, changes: JsonObject) -> JsonObject:
    """The body with these fields replaced; None leaves a field out."""
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


@pytest.fixture
def live(stack: RunningStack, client: Client) -> Iterator[Live]:
    """Whole again before and after each test, and with nothing left to do."""
    key = stack.key_file.read_text().strip()
    with httpx.Client(
        base_url=stack.url, headers={"authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    ) as http:
        made = Live(stack, client, http)
        made.wait_until_ready()
        yield made
        made.resume(*made.stack.supervisor.names())
        made.wait_until_ready()
        for experiment in client.experiments.list():
            if not experiment.state.finished:
                experiment.cancel()


@pytest.fixture(scope="session")
def remembered() -> dict[str, list[Curve]]:
    return {}


@pytest.fixture
def undisturbed(live: Live, remembered: dict[str, list[Curve]]) -> list[Curve]:
    """The curves of `JOB` when nothing happens to it; trained once for all tests."""
    if "job" not in remembered:
        experiment = live.submit().wait(timeout_s=100)
        assert experiment.state == "COMPLETED"
        remembered["job"] = live.curves(experiment)
    return remembered["job"]


@pytest.fixture
def whole_log() -> Callable[[Sequence[Event]], None]:
    """Fails unless the events are the whole story of a finished experiment: no gap, no repeat, every epoch once."""

    def check(events: Sequence[Event]) -> None:
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        epochs = [
            (event.data["trial"], event.data["epoch"]) for event in events if event.type is EventType.TRIAL_MEASUREMENT
        ]
        assert len(epochs) == len(set(epochs))
        assert events[-1].type is EventType.EXPERIMENT_STATE

    return check
