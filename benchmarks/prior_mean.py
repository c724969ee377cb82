"""What settings of a network are worth on average over tasks: makes `metalearner/prior_means/<network>.json`.

    python -m benchmarks.prior_mean                    # trains what is missing, says how well it holds, writes the file
    python -m benchmarks.prior_mean --dry-run          # writes nothing

Learned from made tasks alone (`benchmarks.rehearsal_parts.made`), so that digits and Fashion-MNIST stay apart for
reports. Printed is, for each task, the rank correlation of its best values with the mean of the other families, over
all settings and among the better three tenths. Resumable: curves are kept in --folder, which the rehearsal shares.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.rehearsal_parts.curves import Curve, all_trained
from benchmarks.tuning_task import NETWORK
from metalearner import PriorMean, gp, quasirandom
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.expert import Belief
from metalearner.sensitivity import informed
from workers.networks import get_network

FAMILIES = {
    "clusters": ("classes-a", "classes-b", "classes-c", "classes-d"),
    "taught": ("taught-a", "taught-b", "taught-c"),
    "images": ("images-a", "images-b", "images-c"),
}
_PERFECT = 0.003
"""Added to the error, so that its logarithm has an end."""
_MIDDLE, _GOOD, _WORST = 0.3, 0.9, -2.0
"""A task's score is 0 at this quantile of its settings, 1 at that one, and cut here."""
_POINTS, _HIDDEN, _EPOCHS, _BATCH, _RATE = 40_000, 64, 120, 500, 0.02
_OUTPUT = Path(__file__).parents[1] / "metalearner" / "prior_means"


def main() -> None:
    """Trains, judges and writes."""
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    network = get_network(NETWORK)
    encoding = Encoding.of(network.space)
    curves = {
        task: all_trained(task, arguments.settings, arguments.folder) for one in FAMILIES.values() for task in one
    }
    surfaces = {task: _surface(encoding, curves[task]) for task in curves}
    for family, tasks in FAMILIES.items():
        others = {name: some for name, some in FAMILIES.items() if name != family}
        for task in tasks:
            _judge(task, encoding, curves[task], others, surfaces)
    rows = _rows(encoding)
    fitted = _fitted(encoding.features(rows), -_mean(FAMILIES, surfaces, encoding.features(rows)))
    known = PriorMean(NETWORK, encoding, network.defaults, *fitted)
    if not arguments.dry_run:
        _OUTPUT.mkdir(exist_ok=True)
        (_OUTPUT / f"{NETWORK}.json").write_text(json.dumps(known.to_json()) + "\n")


def scores(curves: list[Curve]) -> Array:
    """Of each setting, more is better: the logarithm of the error, on a scale that tasks share."""
    logs = -np.log(1.0 - np.array([max(one.values) for one in curves]) + _PERFECT)
    middle, good = np.quantile(logs, [_MIDDLE, _GOOD])
    return np.maximum((logs - middle) / (good - middle), _WORST)


def _surface(encoding: Encoding, curves: list[Curve]) -> tuple[gp.Posterior, float, float]:
    """The process of a task's standardised scores, with their mean and deviation."""
    features = encoding.features(encoding.encode_all([one.configuration for one in curves]))
    found = scores(curves)
    centre, spread = float(found.mean()), float(found.std())
    prior, targets = informed(gp.Prior(), encoding.space), (found - centre) / spread
    kernel = gp.fit(features, targets, encoding.groups, prior, 60)
    return gp.condition(kernel, encoding.groups, features, targets), centre, spread


def _mean(
    families: dict[str, tuple[str, ...]], surfaces: dict[str, tuple[gp.Posterior, float, float]], features: Array
) -> Array:
    """Over the families, each the mean over its tasks: (m, P) -> (m,)."""

    def surface(task: str) -> Array:
        posterior, centre, spread = surfaces[task]
        points = posterior.kernel.scaled(features, posterior.groups)
        return posterior.kernel.between(points, posterior.points) @ posterior.weights * spread + centre

    return np.asarray(np.mean([np.mean([surface(task) for task in tasks], 0) for tasks in families.values()], 0))


def _judge(
    task: str,
    encoding: Encoding,
    curves: list[Curve],
    others: dict[str, tuple[str, ...]],
    surfaces: dict[str, tuple[gp.Posterior, float, float]],
) -> None:
    found = scores(curves)
    expected = _mean(others, surfaces, encoding.features(encoding.encode_all([one.configuration for one in curves])))
    good = found >= np.quantile(found, 0.7)
    everywhere, among_good = spearmanr(found, expected)[0], spearmanr(found[good], expected[good])[0]
    print(f"{task:12s} rank correlation with the other families {everywhere:5.2f}, among the good {among_good:5.2f}")


def _rows(encoding: Encoding) -> Array:
    """Half from all of the space, half around the default: (m, D)."""
    network = get_network(NETWORK)
    belief = Belief(encoding, encoding.encode(network.default_configuration(network.space)))
    points = [quasirandom.point(encoding.width, 1, number) for number in range(_POINTS)]
    points[::2] = [belief.spread(point) for point in points[::2]]
    return encoding.rows(np.array(points))


def _fitted(features: Array, targets: Array) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The perceptron's weights: one hidden layer, tanh, no bias at the end, as only differences count."""
    torch.manual_seed(0)
    first, last = torch.nn.Linear(features.shape[1], _HIDDEN), torch.nn.Linear(_HIDDEN, 1, bias=False)
    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(targets - targets.mean(), dtype=torch.float32)
    held = len(x) // 20
    parameters = [*first.parameters(), *last.parameters()]
    optimizer = torch.optim.Adam(parameters)
    steps = _EPOCHS * -(-(len(x) - held) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(_EPOCHS):
        for some in (torch.randperm(len(x) - held) + held).split(_BATCH):
            loss = (last(torch.tanh(first(x[some]))).squeeze(1) - y[some]).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        left = (last(torch.tanh(first(x[:held]))).squeeze(1) - y[:held]).square().mean() / y[:held].var()
        print(f"the perceptron explains {1 - float(left):.3f} of the mean's variance at points that it has not seen")
        weights = first.weight.T, first.bias, last.weight[0]
        hidden, bias, head = (one.numpy() for one in weights)
        return hidden, bias, head


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prior_mean", description=__doc__.partition("\n")[0])
    parser.add_argument("--settings", type=int, default=80, help="of each third")
    parser.add_argument("--folder", type=Path, default=Path("bench-curves"), help="where curves are kept")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
