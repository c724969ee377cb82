"""Whatever is killed, hung or cut off while jobs run: nothing is lost. `make chaos` is the long run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def chaos(root: Path, *arguments: str) -> str:
    """The printed tally of a run in a process of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_a_short_run(request: pytest.FixtureRequest) -> None:
    said = chaos(request.config.rootpath, "--faults", "10", "--seed", "5", "--pause", "0.2")
    assert "seed 5: 10 faults" in said
    assert "nothing lost" in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_faults(request: pytest.FixtureRequest) -> None:
    assert "nothing lost" in chaos(request.config.rootpath, "--faults", "200")
