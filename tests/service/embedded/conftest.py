"""Short folders: pytest's own are long enough to push sockets out of the data folder, which has a test of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded.processes import Identity, is_alive, read_pid_file
from service.embedded.servers import embedded_servers


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short empty folder, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


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


@pytest.fixture
def nothing_left_running(folder: Path) -> Iterator[None]:
    """After each test, no server of its folder may live."""
    yield
    left: list[Identity] = []
    for path in folder.rglob("*.pid"):
        identity = read_pid_file(path)
        if identity is not None and is_alive(identity):
            left.append(identity)
    assert left == []
