"""Real parts for every test: both servers, a migrated database for each test, and a live stack of processes.

    servers     Postgres and the Redis-protocol server, once a run
    database    a migrated database without a row
    bus         Redis, emptied before the test; drive its coroutines with `runner`
    artifacts   an empty artifact store
    project     a project with a key
    stack       API, desk worker, train worker and beat as processes, once a run
    client      `foretune.Client` on the stack

The network is off: this process may open sockets to its own machine only.
"""

from __future__ import annotations

import os

# Before numpy: as `make test` has it. Several threads for small matrices spin, on a busy machine for seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import ipaddress
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

if TYPE_CHECKING:
    from foretune.client import Client
    from service.artifacts import ArtifactStore
    from service.bus import Bus
    from service.db.session import Database
    from service.embedded.servers import Servers
    from service.embedded.stack import RunningStack

_MAINTENANCE = "postgres"

# A project without histories is one that knows nothing: tests say when they want what ships with the service.
os.environ["FORETUNE_STARTER_HISTORY"] = "false"

# No deadlines: a busy machine is not a defect. Examples are reproducible from one run to the next.
hypothesis_settings.register_profile(
    "foretune", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("foretune")


class NetworkIsOff(RuntimeError):
    """A test reached for another machine."""


def _refuse_other_machines(event: str, arguments: tuple[object, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and address and not _is_this_machine(str(address[0])):
        raise NetworkIsOff(f"tests talk to this machine only, not to {address!r}")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in ("localhost", "")


sys.addaudithook(_refuse_other_machines)


@dataclass(frozen=True)
class Project:
    """A project: its id, and a key for it."""

    id: str
    key: str


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(short_folder: Path) -> Iterator[Servers]:
    """Postgres and Redis for the whole run. Durability is off: these rows need not outlive the run."""
    from service.embedded.servers import embedded_servers

    with embedded_servers(short_folder / "servers") as running:
        with _maintenance(running) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """The name of a migrated, empty database to clone."""
    from service.db import migrate

    name = "template_foretune"
    with _maintenance(servers) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate.upgrade(_url(servers, name))
    return name


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """A database without any table."""
    with _database(servers, "template0") as url:
        yield url


@pytest.fixture(scope="session")
def shared_database_url(servers: Servers, template: str) -> Iterator[str]:
    """The database that tests use one after another: to make one for each would take longer than most tests."""
    with _database(servers, template) as url:
        yield url


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    """A migrated database without a row."""
    _empty(shared_database_url)
    return shared_database_url


@pytest.fixture
def environment(servers: Servers, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the processes of the service find in their environment."""
    from service.bus.tasks import celery_app
    from service.settings import settings

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("ARTIFACTS_URL", f"file://{tmp_path / 'artifacts'}")
    settings.cache_clear()
    celery_app.cache_clear()
    yield
    if celery_app.cache_info().currsize:
        celery_app().close()
    settings.cache_clear()
    celery_app.cache_clear()


@pytest.fixture
def database(database_url: str, environment: None) -> Iterator[Database]:
    from service.db.session import Database

    made = Database(database_url, pool_size=4)
    yield made
    made.close()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Runs coroutines on one event loop: `runner.run(bus.call(...))`."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def bus(servers: Servers, environment: None, runner: asyncio.Runner) -> Iterator[Bus]:
    """Redis, emptied before the test."""
    from service.bus import Bus

    with redis.Redis.from_url(servers.redis_url) as connection:
        connection.flushall()
    made = Bus(servers.redis_url)
    yield made
    made.close()


@pytest.fixture
def artifacts(environment: None) -> ArtifactStore:
    from service.artifacts import ArtifactStore

    return ArtifactStore(os.environ["ARTIFACTS_URL"])


@pytest.fixture
def project(database: Database) -> Project:
    return make_project(database, "tests")


@pytest.fixture
def other_project(database: Database) -> Project:
    """Somebody else's."""
    return make_project(database, "others")


@pytest.fixture(scope="session")
def stack(short_folder: Path) -> Iterator[RunningStack]:
    """The whole service as processes. Its leases are short, so that tests need not wait long for what died."""
    from service.embedded.stack import StackOptions, start

    settings = {
        "FORETUNE_WORKER_LEASE_S": "3",
        "FORETUNE_UPKEEP_EVERY_S": "0.5",
        "FORETUNE_CHECKPOINT_EVERY_S": "0.2",
        "FORETUNE_SHIFT_S": "5",
        "FORETUNE_MAX_UPLOAD_BYTES": str(3 * 2**20),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in ("FORETUNE_URL", "FORETUNE_API_KEY"):
            patch.delenv(name, raising=False)
        running = start(StackOptions(data_dir=short_folder / "stack", port=0, train_workers=1))
    with running:
        yield running


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """The local key's client."""
    from foretune.client import Client

    with Client(stack.url, stack.key_file.read_text().strip()) as made:
        yield made


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`eventually(condition)` waits until it holds; the limit only bounds a failure."""
    return wait_until


def wait_until(condition: Callable[[], object], within_s: float = 60.0, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(every_s)


def make_project(database: Database, name: str) -> Project:
    from foretune.wire.service import KeyRequest
    from service.usecases import keys

    with database.transaction() as tx:
        made = keys.create_project(tx, name)
        return Project(made.id, keys.create_key(tx, made.id, KeyRequest(name="test")).key)


def _empty(url: str) -> None:
    """Ends whatever a test left open, and deletes its rows: far faster than TRUNCATE for as few as tests make."""
    from service.db import migrate
    from service.db.tables import metadata

    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        deletions = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
        connection.execute("; ".join([*deletions, f"UPDATE alembic_version SET version_num = '{migrate.head()}'"]))


@contextmanager
def _database(servers: Servers, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with _maintenance(servers) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url(servers, name)
    with _maintenance(servers) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _maintenance(servers: Servers) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    conninfo = _url(servers, _MAINTENANCE).replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection


def _url(servers: Servers, name: str) -> str:
    """The servers' database URL with another database."""
    from sqlalchemy import make_url

    return make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
