"""The printed comparison: mean regret at a few points, ratios to a reference with bootstrap intervals, and CPU time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.cold.runs import Run

Array: TypeAlias = npt.NDArray[np.float64]
_POINTS = (10, 25, 50, 100)
_RESAMPLES = 2000
_FLOOR = 1e-4
"""Least regret in a geometric mean: below it a problem counts as solved."""


def print_report(runs: Sequence[Run], reference: str) -> None:
    """Prints every problem, then means over problems; only seeds that every method has are compared."""
    methods = list(dict.fromkeys(run.method for run in runs))
    problems = list(dict.fromkeys(run.problem for run in runs))
    table = {problem: _anytime(runs, problem, methods) for problem in problems}
    table = {problem: values for problem, values in table.items() if values is not None}
    if not table:
        print("nothing to compare: no seed was run by every method")
        return
    points = [point for point in _POINTS if point <= next(iter(table.values())).shape[2]]
    _print_problems(table, methods, points)
    splits = {run.problem: run.split for run in runs}
    for split in ("development", "report", "all"):
        chosen = [table[problem] for problem in table if split in ("all", splits[problem])]
        if chosen:
            print(f"\n{split}: {len(chosen)} problems, {chosen[0].shape[1]} seeds")
            _print_means(chosen, methods, points, reference)
    print("\nCPU seconds a proposal (mean; at evaluations 50 and 100)")
    for method in methods:
        cpu = np.array([run.cpu_s for run in runs if run.method == method])
        late = "".join(f"  @{point} {cpu[:, point - 5 : point].mean():.4f}" for point in points if point >= 50)
        print(f"  {method:16s} {cpu.mean():.4f}{late}")


def _anytime(runs: Sequence[Run], problem: str, methods: Sequence[str]) -> Array | None:
    """Best regret so far: (methods, common seeds, evaluations)."""
    of_method = {m: {run.seed: run for run in runs if run.problem == problem and run.method == m} for m in methods}
    seeds = sorted(set.intersection(*(set(found) for found in of_method.values())))
    if not seeds:
        return None
    return np.array([[np.minimum.accumulate(of_method[m][seed].regrets) for seed in seeds] for m in methods])


def _print_problems(table: dict[str, Array], methods: Sequence[str], points: Sequence[int]) -> None:
    print(f"{'mean regret':32s}" + "".join(f"{method:>{8 * len(points) + 2}s}" for method in methods))
    print(" " * 32 + "".join("  " + "".join(f"{f'@{point}':>8s}" for point in points) for _ in methods))
    for problem, values in table.items():
        cells = ["  " + "".join(f"{row[:, point - 1].mean():8.4f}" for point in points) for row in values]
        print(f"{problem:32s}" + "".join(cells))


def _print_means(chosen: Sequence[Array], methods: Sequence[str], points: Sequence[int], reference: str) -> None:
    for name, score in (("mean", _mean), ("geometric mean", _geometric)):
        print(f"  {name} over problems" + (f", ratio to {reference} [95 %]" if reference in methods else ""))
        for position, method in enumerate(methods):
            cells = []
            for point in points:
                own = [values[position, :, point - 1] for values in chosen]
                cell = f"@{point} {score(own):.4f}"
                if reference in methods and method != reference:
                    other = [values[methods.index(reference), :, point - 1] for values in chosen]
                    cell += " ({:.2f} [{:.2f}, {:.2f}])".format(*_ratio(own, other, score))
                cells.append(f"{cell:30s}")
            print(f"    {method:16s}" + "".join(cells))


def _mean(per_problem: Sequence[Array]) -> float:
    return float(np.mean([values.mean() for values in per_problem]))


def _geometric(per_problem: Sequence[Array]) -> float:
    return float(np.exp(np.mean([np.log(np.maximum(values.mean(), _FLOOR)) for values in per_problem])))


def _ratio(own: Sequence[Array], other: Sequence[Array], score: object) -> tuple[float, float, float]:
    """The ratio of two scores, and its 95 % interval under resampling of seeds within each problem."""
    assert callable(score)
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(_RESAMPLES):
        picks = [generator.integers(len(values), size=len(values)) for values in own]
        upper = score([values[pick] for values, pick in zip(own, picks, strict=True)])
        lower = score([values[pick] for values, pick in zip(other, picks, strict=True)])
        ratios.append(upper / max(lower, 1e-12))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return score(own) / max(score(other), 1e-12), float(low), float(high)
