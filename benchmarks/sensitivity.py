"""How quickly results change along each hyperparameter: what `metalearner.sensitivity` knows, and where it is from.

    python -m benchmarks.sensitivity                              # all development tasks of `benchmarks.rehearsal`
    python -m benchmarks.sensitivity --tasks classes-a digits-a

Each task's settings are trained (kept in --folder, which the rehearsal shares), and a process is fitted to their best
values. Printed is the length scale of each hyperparameter in its own units: e-folds where it is searched by orders of
magnitude, and the noise in parts of the variance of all settings.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from benchmarks.rehearsal_parts.curves import TASKS, all_trained, refuse_missing
from benchmarks.tuning_task import NETWORK
from metalearner import gp
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.outcomes import warp
from metalearner.sensitivity import edge, known_length
from workers.networks import get_network

_ITERATIONS = 200
_PRIOR = gp.Prior(noise_mean=-3.0)


def main() -> None:
    """Trains what is missing, and prints a column a task beside what is known."""
    arguments = _arguments()
    refuse_missing(arguments.tasks)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    space = get_network(NETWORK).space
    fitted = [_kernel(task, arguments.settings, arguments.folder) for task in arguments.tasks]
    print(f"{'':22s}{'known':>9s}" + "".join(f"{task:>13s}" for task in arguments.tasks))
    for parameter in space.parameters:
        known, span, place = known_length(parameter), edge(parameter), space.slices[parameter.name]
        for dimension in range(place.start, place.stop):
            cells = [f"{span * kernel.length_scales[dimension]:13.2f}" if span else f"{'-':>13s}" for kernel in fitted]
            print(f"{parameter.name:22s}{known or math.nan:9.2f}" + "".join(cells))
    print(f"{'noise':22s}{'':9s}" + "".join(f"{kernel.noise:13.3f}" for kernel in fitted))


def _kernel(task: str, settings: int, folder: Path) -> gp.Kernel:
    encoding = Encoding.of(get_network(NETWORK).space)
    curves = all_trained(task, settings, folder)
    losses: Array = -np.array([max(one.values) for one in curves])
    features = encoding.features(encoding.encode_all([one.configuration for one in curves]))
    return gp.fit(features, warp(losses)[1], encoding.groups, _PRIOR, _ITERATIONS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--settings", type=int, default=80, help="of each third")
    parser.add_argument("--folder", type=Path, default=Path("bench-curves"), help="where curves are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
