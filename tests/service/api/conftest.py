"""The API served over real sockets from this process, on a database of the test's own."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest
import structlog
from fastapi import FastAPI

from foretune.json_types import JsonObject, JsonValue
from foretune.wire.datasets import Network
from service.api.app import create_app
from service.api.parts import Parts
from service.api.server import Server
from service.db.session import Database
from service.logs import configure_logging
from service.settings import settings
from service.usecases import networks

if TYPE_CHECKING:
    from service.artifacts import ArtifactStore
    from service.bus import Bus
    from tests.conftest import Project

EXTERNAL: JsonObject = {
    "mode": "external",
    "metric": {"name": "loss", "goal": "minimize"},
    "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 0.1, "log": True}],
    "budget": {"max_trials": 4, "max_epochs": 3},
    "stopping": "none",
}


@dataclass
class Api:
    """A running API, and a client with the project's key."""

    app: FastAPI
    url: str
    http: httpx.Client
    stop: Callable[[], None]
    _others: list[httpx.Client] = field(default_factory=list)

    @property
    def parts(self) -> Parts:
        parts = self.app.state.parts
        assert isinstance(parts, Parts)
        return parts

    def as_key(self, key: str | None) -> httpx.Client:
        """A client with another key, or with none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        made = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)
        self._others.append(made)
        return made

    def submit(self, **changes: JsonValue) -> str:
        """The id of a new external experiment."""
        answer = self.http.post("/v1/experiments", json={**EXTERNAL, **changes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def ask(self, experiment: str, count: int = 1) -> list[dict[str, JsonValue]]:
        answer = self.http.post(f"/v1/experiments/{experiment}/suggestions", json={"count": count, "wait_seconds": 0})
        assert answer.status_code == 200, answer.text
        trials = answer.json()["trials"]
        assert isinstance(trials, list)
        return trials

    def lease(self, experiment: str) -> tuple[str, str]:
        """A new trial: its path and its lease."""
        trial = self.ask(experiment)[0]
        lease = trial["lease"]
        assert isinstance(lease, dict)
        return f"/v1/trials/{trial['id']}", str(lease["token"])

    def close(self) -> None:
        for client in (*self._others, self.http):
            client.close()
        self.stop()


Serve = Callable[..., Api]


@contextmanager
def serving(key: str, **changes: object) -> Iterator[Api]:
    """An API process's insides, in a thread. `changes` replace settings."""
    app = create_app(settings().model_copy(update=changes))
    server = Server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the API did not start"
        thread.join(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the API did not stop"

    api = Api(app, url, http, stop)
    try:
        yield api
    finally:
        api.close()


@pytest.fixture
def serve(database: Database, bus: Bus, project: Project) -> Iterator[Serve]:
    """Starts an API with other settings: `serve(foretune_max_upload_bytes=10)`."""
    with ExitStack() as started:
        yield lambda **changes: started.enter_context(serving(project.key, **changes))


@pytest.fixture
def api(serve: Serve) -> Api:
    return serve()


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """The log as a process of the service writes it; call it for what was written so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logging()
    yield written.getvalue
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@contextmanager
def broken(api: Api) -> Iterator[None]:
    """An API with a fault in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.parts, "database", None)
        yield


@pytest.fixture
def network(database: Database) -> str:
    """The name of a network that some worker has published."""
    described = Network.model_validate(
        {
            "name": "mlp",
            "description": "for tests",
            "tasks": ["classification"],
            "views": ["tabular"],
            "space": [{"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1.0, "log": True}],
            "limits": [{"name": "learning_rate", "type": "float", "low": 1e-8, "high": 1e3, "log": True}],
            "defaults": {"learning_rate": 0.01},
            "metrics": {"classification": ["val_accuracy"]},
        }
    )
    with database.transaction() as tx:
        networks.publish(tx, [described])
    return described.name


@pytest.fixture
def parser(database: Database, bus: Bus, artifacts: ArtifactStore) -> Iterator[None]:
    """A worker that reads uploads."""
    from sqlalchemy import select

    from service.db.tables import datasets
    from workers.parsing import parse_dataset
    from workers.process import WorkerProcess

    process = WorkerProcess("wrk_test", database, bus, artifacts)
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.02):
            with database.reading() as tx:
                waiting = tx.connection.execute(select(datasets.c.id).where(datasets.c.state == "PARSING")).scalars()
                ids = list(waiting)
            for dataset_id in ids:
                parse_dataset(process, dataset_id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopping.set()
    thread.join(20)


def problem_of(answer: httpx.Response) -> dict[str, object]:
    """The problem document that an answer is. Checks that it is one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:foretune:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert ("errors" in problem) == (answer.status_code == 422)
    assert isinstance(problem, dict)
    return problem
