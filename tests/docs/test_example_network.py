"""The example package, installed as a user installs it: found by its entry point, trained, and learning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import json
from workers.datasets.builtin import load_builtin
from workers.datasets.prepare import prepare
from workers.engine import Engine, trial_spec
from workers.networks import broken_networks, get_network
from workers.training import describe

network = get_network("tabular-resnet")
engine = Engine(network, prepare(load_builtin("breast_cancer"), 0, "tabular"), "cpu")
engine.admit(trial_spec(network, "trial", network.default_configuration(network.space), max_epochs=10, seed=0))
curve = []
while engine.live:
    curve += [report.metrics["val_accuracy"] for report in engine.advance()]
described = describe(network).model_dump(mode="json")
print(json.dumps({"curve": curve, "broken": len(broken_networks()), "described": described}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("example")
    copied = shutil.copytree(
        root / "examples" / "foretune-example-network", folder / "source", ignore=shutil.ignore_patterns("*.egg-info")
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder / "target")]
    subprocess.run([*pip, *offline, str(copied)], check=True, capture_output=True, timeout=100)
    return folder / "target"


def test_it_is_found_and_learns(installed: Path, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{installed}:{root}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["broken"] == 0
    assert len(told["curve"]) == 10
    assert max(told["curve"]) > 0.93
    assert {"width", "depth", "expansion", "learning_rate", "lr_schedule"} <= {
        parameter["name"] for parameter in told["described"]["space"]
    }
