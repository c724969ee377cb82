"""Postgres and the Redis-protocol server for real: what both promise, and what they survive."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text

from service.embedded import postgres
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout
from service.embedded.processes import identify, is_alive, read_pid_file
from service.embedded.servers import embedded_servers
from service.embedded.spawning import RunAs, command_line
from tests.service.embedded.writing import WRITER, connect

pytestmark = pytest.mark.usefixtures("nothing_left_running")


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for `condition`; the limit only bounds a failure."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


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


def _without_death_signal(argv: tuple[str, ...]) -> list[str]:
    """`argv` as its own user, but tied to nobody: signal 0 is none."""
    run_as = RunAs("namespace", 1, 1) if os.geteuid() == 0 else RunAs()
    return command_line(argv, run_as, 0)
