"""What one model-based proposal costs: ours against BoTorch's standard loop, on the same observations.

    python -m benchmarks.proposal_cost

BoTorch: `SingleTaskGP` fitted by `fit_gpytorch_mll`, log expected improvement maximised by `optimize_acqf` with 8
restarts and 256 raw samples, one thread. Ours: `metalearner.propose` with either effort, with and without its memory.
CPU seconds of the process, the median of the repeats; and the CPU that importing each costs. Needs the extra `bench`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Effort, Memory, Observation, Problem, ProposerName, propose

_DIMENSIONS = 6
_COUNTS = (25, 100)
_REPEATS = 5


def main() -> None:
    """Prints one row for each way and number of observations."""
    for module in ("metalearner", "botorch"):
        print(f"import {module:12s} {_import_cost(module):6.2f} CPU s")
    for count in _COUNTS:
        for effort in Effort:
            memory = Memory()
            _ours(_observations(count - 1), effort, memory)
            print(_row(f"foretune {effort.value}, warm", count, partial(_ours, effort=effort, memory=memory)))
            print(_row(f"foretune {effort.value}, cold", count, partial(_ours, effort=effort, memory=None)))
        print(_row("botorch", count, _botorch))


def _observations(count: int) -> list[Observation]:
    generator = np.random.default_rng(0)
    points = generator.random((count, _DIMENSIONS))
    values = ((points - 0.3) ** 2).sum(1) + 0.1 * np.sin(9 * points[:, 0])
    return [
        Observation({f"x{j}": float(x) for j, x in enumerate(point)}, float(value))
        for point, value in zip(points, values, strict=True)
    ]


def _ours(observations: list[Observation], effort: Effort, memory: Memory | None) -> None:
    space = Space.of(*(Float(f"x{j}", 0.0, 1.0) for j in range(_DIMENSIONS)))
    problem = Problem(space, Goal.MINIMIZE, 1, 1000, 0, ProposerName.GP)
    propose(problem, observations, [], 1, index=len(observations), memory=memory, effort=effort)


def _botorch(observations: list[Observation]) -> None:
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.set_num_threads(1)
    names = [f"x{j}" for j in range(_DIMENSIONS)]
    x = torch.tensor([[one.configuration[name] for name in names] for one in observations], dtype=torch.float64)
    y = -torch.tensor([[one.value] for one in observations], dtype=torch.float64)
    model = SingleTaskGP(x, y, outcome_transform=Standardize(1))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    bounds = torch.stack([torch.zeros(_DIMENSIONS), torch.ones(_DIMENSIONS)]).double()
    optimize_acqf(LogExpectedImprovement(model, y.max()), bounds, q=1, num_restarts=8, raw_samples=256)


def _row(name: str, count: int, ask: Callable[[list[Observation]], None]) -> str:
    observations = _observations(count + _REPEATS)
    spent = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(_REPEATS):
            started = time.process_time()
            ask(observations[: count + repeat])
            spent.append(1e3 * (time.process_time() - started))
    spread = f"[{min(spent):.1f}, {max(spent):.1f}]"
    return f"{name:26s} n={count:<4d} {statistics.median(spent):8.1f} ms  {spread}"


def _import_cost(module: str) -> float:
    code = f"import time, {module}; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
