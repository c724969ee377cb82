"""The README is followed word for word: its shell blocks as one session, its Python blocks as programs of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from foretune import Client
    from service.embedded.stack import RunningStack


class Block(Protocol):
    language: str
    code: str
    line: int


@pytest.fixture
def environment_of_a_reader(stack: RunningStack, root: Path, tmp_path: Path) -> dict[str, str]:
    """What the README's second terminal has: the address, the key, and the commands of the virtual environment."""
    (tmp_path / "examples").symlink_to(root / "examples")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FORETUNE_")},
        "FORETUNE_URL": stack.url,
        "FORETUNE_API_KEY": stack.key_file.read_text().strip(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",
    }


def code(readme: list[Block], language: str) -> list[str]:
    return [block.code for block in readme if block.language == language]


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout


def test_the_curl_walk_through(
    readme: list[Block], environment_of_a_reader: dict[str, str], tmp_path: Path, client: Client
) -> None:
    session = "set -euo pipefail\n" + "\n".join(code(readme, "bash"))
    said = run(["bash", "-c", session], tmp_path, environment_of_a_reader)
    experiment = json.loads((tmp_path / "experiment.json").read_text())
    # The stream ended with the event that finished the experiment.
    assert '"state":"COMPLETED"' in said.replace(" ", "")
    assert said.count("event: trial.created") == experiment["budget"]["max_trials"] == 12
    assert '"recommendations"' in said
    assert client.experiments.read(experiment["id"]).state == "COMPLETED"
    assert (tmp_path / "trials.csv").read_text().count("\n") == 1 + 12


def test_ask_and_tell_with_a_loop_of_ones_own(
    readme: list[Block], environment_of_a_reader: dict[str, str], tmp_path: Path, client: Client
) -> None:
    loop, function = code(readme, "python")
    said = run([sys.executable, "-c", loop], tmp_path, environment_of_a_reader)
    assert float(said.split()[0]) > 0.5
    ended = next(one.info for one in client.experiments.list() if one.name == "my-own-loop")
    assert ended.state == "COMPLETED"
    assert sum(ended.progress.trials.values()) == 10
    assert said.split()[0] == f"{ended.best.value:.3f}" if ended.best else False
    run([sys.executable, "-c", function], tmp_path, environment_of_a_reader)
    assert next(one for one in client.experiments.list() if one.name == "a-function").state == "COMPLETED"


def test_the_submission_file_is_accepted(environment_of_a_reader: dict[str, str], root: Path, tmp_path: Path) -> None:
    command = ["foretune", "submit", "examples/digits.yaml", "--json", "--max-trials", "1", "--max-epochs", "1"]
    made = json.loads(run(command, tmp_path, environment_of_a_reader))
    assert made["network"] == "mlp"
