"""The printed comparison: mean regret, interquartile mean with its interval, rank, negative transfer, time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.transfer_parts.runs import Run
from benchmarks.transfer_parts.tables import Array

_POINTS = (1, 5, 10, 15, 25, 40, 50, 100)
_RESAMPLES = 1000
_WORSE = 0.01
_TARGET = 50


def print_report(runs: Sequence[Run]) -> None:
    """Only seeds and tasks that every method has are compared."""
    methods = list(dict.fromkeys(run.method for run in runs))
    found = {method: {(run.task, run.seed): run for run in runs if run.method == method} for method in methods}
    common = sorted(set.intersection(*(set(one) for one in found.values()))) if found else []
    if not common:
        print("nothing to compare: no run was made by every method")
        return
    reached = {
        method: np.minimum.accumulate([found[method][key].regrets for key in common], axis=1) for method in methods
    }
    tasks = np.array([task for task, _ in common])
    points = [point for point in _POINTS if point <= reached[methods[0]].shape[1]]
    print(f"{len(set(tasks))} tasks, {len(common)} runs a method")
    ranks = _ranks(reached)
    goal = _goal(reached, tasks)
    for method in methods:
        values = reached[method]
        print(f"  {method:18s} mean    " + "".join(f" @{p} {values[:, p - 1].mean():.4f}" for p in points))
        print(f"  {'':18s} IQM     " + "".join(f" @{p} {_iqm_interval(values[:, p - 1], tasks)}" for p in points))
        print(f"  {'':18s} rank    " + "".join(f" @{p} {ranks[method][:, p - 1].mean():.2f}" for p in points))
        details = [f"median {np.median([1e3 * np.median(found[method][key].cpu_s) for key in common]):.1f} ms CPU"]
        details.append(f"first {1e3 * np.mean([found[method][key].cpu_s[0] for key in common]):.0f} ms")
        if goal is not None:
            mean = _per_task(values, tasks).mean(0)
            below = np.flatnonzero(mean <= goal)
            details.append(f"best GP's @{_TARGET} ({goal:.4f}) after {below[0] + 1 if len(below) else 'more'}")
        if "cold" in reached and method not in ("cold", "random"):
            details.append(_harm(values, reached["cold"], tasks, points))
        print(f"  {'':18s} " + "; ".join(details))


def _per_task(values: Array, tasks: Array) -> Array:
    """Means over seeds: (runs, trials) -> (tasks, trials)."""
    return np.array([values[tasks == task].mean(0) for task in np.unique(tasks)])


def _goal(reached: dict[str, Array], tasks: Array) -> float | None:
    """The least mean regret of a peer's process after fifty trials."""
    peers = [reached[name] for name in ("optuna_gp", "botorch_gp") if name in reached]
    if not peers or peers[0].shape[1] < _TARGET:
        return None
    return min(float(_per_task(peer, tasks)[:, _TARGET - 1].mean()) for peer in peers)


def _ranks(reached: dict[str, Array]) -> dict[str, Array]:
    """Mean rank among the methods, ties shared, from 1."""
    stacked = np.array(list(reached.values()))  # (methods, runs, trials)
    below = (stacked[None] < stacked[:, None]).sum(1)
    equal = (stacked[None] == stacked[:, None]).sum(1)
    return dict(zip(reached, below + 0.5 * (equal + 1), strict=True))


def _harm(values: Array, cold: Array, tasks: Array, points: Sequence[int]) -> str:
    """The ratio of means to ours cold, and the share of tasks that end more than .01 worse."""
    ratios = " ".join(f"@{p} {values[:, p - 1].mean() / max(cold[:, p - 1].mean(), 1e-12):.2f}" for p in points)
    ended = _per_task(values, tasks)[:, -1] - _per_task(cold, tasks)[:, -1]
    return f"to cold {ratios}; {100 * (ended > _WORSE).mean():.0f} % of tasks worse"


def _iqm(values: Array) -> float:
    ordered = np.sort(values)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def _iqm_interval(values: Array, tasks: Array) -> str:
    """Interquartile mean over runs; 95 % interval over resampled seeds within tasks."""
    generator = np.random.default_rng(0)
    groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    drawn = [_iqm(values[np.concatenate([generator.choice(g, len(g)) for g in groups])]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{_iqm(values):.4f} [{low:.4f}, {high:.4f}]"
