"""Does the starter history help on data that it never saw? Real trainings, families of data left out.

    python -m benchmarks.starter [--trials 10] [--seeds 3] [--packed FILE]

For each base data set, every starter job on it or on a variant of it is taken out; then the first proposals of an
experiment on it are trained, once knowing what is left and once knowing nothing. Regret: 0 is the best value of the
data set's own starter job (32 trials), 1 its median; below 0 the proposals found something better. Both sides begin as
the service would, with the same seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from metalearner import (
    Effort,
    FeatureLikeness,
    Memory,
    Observation,
    Problem,
    TaskHistory,
    informed,
    known_mean,
    propose,
)
from workers.datasets.dataset import Dataset
from workers.datasets.prepare import prepare, views
from workers.engine import METRICS, Engine, trial_spec
from workers.networks import get_network
from workers.starter import shelf
from workers.starter.sources import sources

_POINTS = (1, 3, 5, 10)
_NETWORK = "mlp"


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    shelf.PACKED = arguments.packed
    histories = [one for one in shelf.starter_histories() if one.task.network == _NETWORK]
    regrets: dict[bool, list[list[float]]] = {True: [], False: []}
    for dataset in sources():
        own = next((one for one in histories if one.reference == f"{shelf.PREFIX}{_NETWORK}-{dataset.name}"), None)
        if own is None:
            continue
        others = [one for one in histories if _family(one) != dataset.name]
        for seed in range(arguments.seeds):
            for warm in (True, False):
                found = _tune(dataset, own, others if warm else [], arguments.trials, seed)
                regrets[warm].append(found)
                shown = " ".join(f"@{n} {found[n - 1]:+.3f}" for n in _POINTS if n <= len(found))
                print(f"{dataset.name:14} seed {seed} {'starter' if warm else 'nothing'}  {shown}", flush=True)
    for n in (point for point in _POINTS if point <= arguments.trials):
        means = {warm: np.array([one[n - 1] for one in found]) for warm, found in regrets.items()}
        difference = means[True] - means[False]
        draws = np.random.default_rng(0).choice(difference, (2000, len(difference))).mean(1)
        low, high = np.quantile(draws, (0.025, 0.975))
        print(
            f"@{n}: starter {means[True].mean():.3f}, nothing {means[False].mean():.3f}; "
            f"difference {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        )


def _family(history: TaskHistory) -> str:
    return history.reference.removeprefix(f"{shelf.PREFIX}{_NETWORK}-").partition(".")[0]


def _tune(dataset: Dataset, own: TaskHistory, others: Sequence[TaskHistory], trials: int, seed: int) -> list[float]:
    """The regret after each trial: best so far on the scale of the data set's own starter job."""
    network = get_network(_NETWORK)
    space, metric, sign = network.space_for(dataset.task), METRICS[dataset.task][0], own.task.goal.sign
    problem = Problem(
        space=space,
        goal=own.task.goal,
        max_epochs=12,
        max_trials=trials,
        seed=seed,
        defaults=network.default_configuration(space),
        network_known=bool(others),
        prior_mean=known_mean(_NETWORK),
    )
    task = replace(own.task, dataset="left out")
    if others:
        weights = FeatureLikeness().weights(task, [one.task for one in others])
        problem = informed(problem, others, weights.tolist())
    view = network.view_for(views(dataset))
    assert view is not None
    data = prepare(dataset, 0, view)
    known = sorted(-sign * value for value in own.values if value is not None)
    best, median = known[0], float(np.median(known))
    memory = Memory()
    observations: list[Observation] = []
    regrets: list[float] = []
    for number in range(trials):
        (proposal,) = propose(problem, observations, [], 1, index=number, memory=memory, effort=Effort.FAST)
        engine = Engine(network, data, "cpu", capacity=1)
        engine.admit(trial_spec(network, "t", proposal.configuration, max_epochs=12, seed=number, space=space))
        values: list[float] = []
        while engine.live:
            values += [report.metrics[metric] for report in engine.advance() if report.failure is None]
        value = max(values, key=lambda one: sign * one) if values else None
        observations.append(Observation(proposal.configuration, value, infeasible=value is None))
        losses = [-sign * one.value for one in observations if one.value is not None]
        regrets.append((min(losses) - best) / (median - best) if losses else 3.0)
    return regrets


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starter", description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--packed", type=Path, default=shelf.PACKED)
    return parser.parse_args()


if __name__ == "__main__":
    main()
