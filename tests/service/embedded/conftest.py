"""Short folders: pytest's own are long enough to push sockets out of the data folder, which has a test of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short empty folder, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
