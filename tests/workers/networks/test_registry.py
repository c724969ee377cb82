"""Networks of installed packages, in a process that finds them as it finds any package."""

import json
import os
import subprocess
import sys
from pathlib import Path

GOOD = """
from torch import nn
from foretune.parameters import Float, Int
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks import Network, training_parameters

class Shallow(nn.Module):
    def __init__(self, features, units, outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, units), nn.Tanh(), nn.Linear(units, outputs))
    def forward(self, x):
        return self.layers(x)

def build(values, shape):
    return Shallow(shape.input_shape[0], values["units"], shape.output_size)

NETWORK = Network(
    name="shallow", description="One hidden layer", tasks=(Task.CLASSIFICATION,), views=("tabular",),
    space=Space.of(Float("learning_rate", 1e-4, 1.0, log=True), Int("units", 4, 64, log=True)),
    build=build, defaults={"units": 16},
)
def make():
    return NETWORK
def clash():
    from workers.networks import mlp
    return mlp.NETWORK
NOTHING = 3
"""

ENTRY_POINTS = """[foretune.networks]
shallow = shallow_package:make
broken = shallow_package.absent:NETWORK
nothing = shallow_package:NOTHING
clash = shallow_package:clash
"""

PROGRAM = """
import json
from workers.datasets.builtin import load_builtin
from workers.datasets.prepare import prepare
from workers.engine import Engine, trial_spec
from workers.networks import broken_networks, get_network, networks
from foretune.errors import NotFound
network = get_network("shallow")
engine = Engine(network, prepare(load_builtin("iris"), 0, "tabular"), "cpu")
engine.admit(trial_spec(network, "trial", network.default_configuration(network.space), max_epochs=25, seed=0))
while engine.live:
    (report,) = engine.advance()
try:
    get_network("broken")
except NotFound as error:
    message = str(error)
print(json.dumps({
    "names": list(networks()), "broken": {b.entry_point: b.reason for b in broken_networks()},
    "accuracy": report.metrics["val_accuracy"], "message": message, "package": broken_networks()[0].package,
}))
"""


def test_an_installed_network_trains_and_a_broken_one_is_reported(tmp_path):
    # Given an installed package with one good network and three that cannot be used
    info = tmp_path / "shallow_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shallow-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "shallow_package.py").write_text(GOOD)
    root = str(Path(__file__).parents[3])

    # When a worker's process looks for networks
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root]), "OMP_NUM_THREADS": "1"},
    )

    # Then the good one trains, and the others are named with their reasons and harm nobody
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["names"] == ["mlp", "cnn", "gru", "transformer", "shallow"]
    assert set(found["broken"]) == {"broken", "nothing", "clash"}
    assert "already a network 'mlp'" in found["broken"]["clash"]
    assert "TypeError" in found["broken"]["nothing"]
    assert found["message"].startswith("network 'broken' of package 'shallow-package' cannot be loaded")
    assert found["accuracy"] > 0.7
