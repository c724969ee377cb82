"""Whole jobs rehearsed on landscapes: many seeds of a job in minutes, where `tuning_wallclock` takes hours.

    python -m benchmarks.rehearsal                          # all tasks, sixteen seeds
    python -m benchmarks.rehearsal --tasks classes-a --effort fast

First some settings are trained for twenty epochs, a third each all over the space, around the default and around the
best of those (kept in --folder, so that the next run begins at once); a landscape is drawn through their curves, and
jobs of 64 trials run on it, ours and Optuna's. What is looked for: which rule or constant is better, paired by seed,
before it is measured for real. Not a report: a landscape is smoother than what it was drawn through, and its data are
development data.

    after k    the best value after k epochs in points, ours less Optuna's, mean and standard error over seeds
    fewer      epochs until Optuna's final best / ours until the same, median over pairs of jobs, and never: share
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.rehearsal_parts.curves import SPLIT, TASKS, all_trained, refuse_missing
from benchmarks.rehearsal_parts.jobs import OurJob, optunas
from benchmarks.rehearsal_parts.landscape import Landscape
from benchmarks.tuning_task import Task
from metalearner import Effort
from metalearner.arrays import Array

_AFTER = (60, 100, 200, 300, 400, 600, 900)


def main() -> None:
    """Trains what is missing, rehearses and prints a line a task."""
    arguments = _arguments()
    refuse_missing(arguments.tasks)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'':14s}" + "".join(f"{f'after {k}':>14s}" for k in _AFTER) + "   fewer  never")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = pool.map(
            _rehearse,
            arguments.tasks,
            repeat(arguments.folder),
            repeat(arguments.settings),
            repeat(arguments.seeds),
            repeat(Effort(arguments.effort)),
        )
        for task, (ours, theirs) in zip(arguments.tasks, rows, strict=True):
            _print(task, ours, theirs)


def _rehearse(task: str, folder: Path, settings: int, seeds: int, effort: Effort) -> tuple[list[Array], list[Array]]:
    """The best so far after each epoch of our jobs, and of Optuna's."""
    curves = all_trained(task, settings, folder)
    landscape = Landscape(curves, len(Task(task, folder / f"{task}.npz").load(SPLIT).val_y))
    ours = [_best_so_far(OurJob(landscape, seed, effort).run()) for seed in range(seeds)]
    return ours, [_best_so_far(optunas(landscape, seed)) for seed in range(seeds)]


def _best_so_far(values: Iterable[float]) -> Array:
    return np.maximum.accumulate(np.fromiter(values, np.float64))


def _print(task: str, ours: list[Array], theirs: list[Array]) -> None:
    cells = []
    for k in _AFTER:
        more = np.array([a[min(k, len(a)) - 1] - b[min(k, len(b)) - 1] for a, b in zip(ours, theirs, strict=True)])
        cells.append(f"{100 * more.mean():+.2f} ± {100 * more.std(ddof=1) / len(more) ** 0.5:.2f}")
    fewer = [_until(b, b[-1]) / _until(a, b[-1]) for a in ours for b in theirs]
    never = np.mean([ratio == 0.0 for ratio in fewer])
    print(
        f"{task:14s}" + "".join(f"{cell:>14s}" for cell in cells) + f"{np.median(fewer):8.2f}{never:7.2f}", flush=True
    )


def _until(best: Array, value: float) -> float:
    """After how many epochs it is had; infinite where never."""
    return float(np.argmax(best >= value) + 1) if best[-1] >= value else float("inf")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearsal", description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--settings", type=int, default=80, help="of each third")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--effort", choices=[one.value for one in Effort], default=Effort.THOROUGH.value)
    parser.add_argument("--folder", type=Path, default=Path("bench-curves"), help="where curves are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
