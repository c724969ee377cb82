"""The API served over real sockets from this process, on a database of the test's own."""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import make_url, select

from foretune.json_types import JsonObject, JsonValue
from foretune.wire.datasets import Network
from service.api.app import create_app
from service.api.parts import Parts
from service.api.server import Server
from service.artifacts import ArtifactStore
from service.bus import Bus
from service.bus.tasks import celery_app
from service.db.session import Database
from service.db.tables import datasets
from service.logs import configure_logging
from service.settings import settings
from service.usecases import networks
from tests.conftest import Project, make_project
from workers.parsing import parse_dataset
from workers.process import WorkerProcess

if TYPE_CHECKING:
    from service.embedded.servers import Servers

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
        made = httpx.Client(base_url=self.url, headers={} if key is None else _bearer(key), timeout=30, trust_env=False)
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

    def close_clients(self) -> None:
        for client in (*self._others, self.http):
            client.close()


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
    http = httpx.Client(base_url=url, headers=_bearer(key), timeout=30, trust_env=False)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the API did not stop"

    api = Api(app, url, http, stop)
    try:
        yield api
    finally:
        api.close_clients()
        stop()


# One database and one API a file: cloning and starting them for each test would take longer than all the tests. What
# tests see of each other is hidden as it is for clients: each has a project of its own.


@pytest.fixture(scope="module")
def database_url(servers: Servers, template: str) -> str:
    name = f"api_{uuid.uuid4().hex}"
    address = make_url(servers.database_url).set(drivername="postgresql", database="postgres")
    with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def environment(servers: Servers, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        patch.setenv("REDIS_URL", servers.redis_url)
        patch.setenv("ARTIFACTS_URL", f"file://{tmp_path_factory.mktemp('artifacts')}")
        settings.cache_clear()
        celery_app.cache_clear()
        yield
        if celery_app.cache_info().currsize:
            celery_app().close()
    settings.cache_clear()
    celery_app.cache_clear()


@pytest.fixture(scope="module")
def database(database_url: str, environment: None) -> Iterator[Database]:
    made = Database(database_url, pool_size=4)
    yield made
    made.close()


@pytest.fixture
def project(database: Database) -> Project:
    return make_project(database, f"tests {uuid.uuid4()}")


@pytest.fixture
def other_project(database: Database) -> Project:
    """Somebody else's."""
    return make_project(database, f"others {uuid.uuid4()}")


@pytest.fixture
def artifacts(environment: None, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path / 'artifacts'}")


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[Api]:
    with serving("") as api:
        yield api


@pytest.fixture
def api(server: Api, project: Project, artifacts: ArtifactStore) -> Iterator[Api]:
    """The file's API with the test's own key and artifacts."""
    server.parts.artifacts = artifacts
    http = httpx.Client(base_url=server.url, headers=_bearer(project.key), timeout=30, trust_env=False)
    own = Api(server.app, server.url, http, server.stop)
    yield own
    own.close_clients()


@pytest.fixture
def serve(database: Database, project: Project, artifacts: ArtifactStore) -> Iterator[Serve]:
    """Starts an API with other settings: `serve(foretune_max_upload_bytes=10)`."""

    def start(**changes: object) -> Api:
        made = started.enter_context(serving(project.key, **changes))
        made.parts.artifacts = artifacts
        return made

    with ExitStack() as started:
        yield start


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
def worker(database: Database, environment: None, artifacts: ArtifactStore) -> WorkerProcess:
    """What a worker process holds."""
    return WorkerProcess("wrk_test", database, Bus(settings().redis_url), artifacts)


@pytest.fixture
def parser(worker: WorkerProcess) -> Iterator[None]:
    """A worker that reads uploads."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.02):
            with worker.database.reading() as tx:
                waiting = tx.connection.execute(select(datasets.c.id).where(datasets.c.state == "PARSING")).scalars()
                ids = list(waiting)
            for dataset_id in ids:
                parse_dataset(worker, dataset_id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    stopping.set()
    thread.join(20)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


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
