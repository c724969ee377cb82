"""How much sooner: real tuning jobs through the API, until they reach what Optuna reaches on the same cores.

    python -m benchmarks.tuning_wallclock                  # five seeds, both data sets
    python -m benchmarks.tuning_wallclock --quick          # two seeds
    python -m benchmarks.tuning_wallclock --seeds 1 --only digits
    python -m benchmarks.tuning_wallclock --our-trials 512 # ours goes on until it has what Optuna's 64 trials found

In each repeat Optuna tunes first: TPE and Hyperband, RDBStorage on the stack's own Postgres, one process a core,
64 trials of up to 20 epochs, each trained by an ordinary loop over the same network and data. The best validation
value that it finds is the target. Then Foretune is asked over HTTP for the same budget with all its defaults, without
histories, and the clock stops when a reader of the event stream sees the target reached. Ratios are Optuna's seconds
and epochs until *it* first had that value, over ours. A run of ours that never reaches the target counts as none.

Fashion-MNIST is read from the Debian package `dataset-fashion-mnist` (apt-get install dataset-fashion-mnist); its
first 10,000 training and 5,000 test images are one data set of 15,000 rows, which both sides split alike. Needs the
extra `bench`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.service_machine import settle
from benchmarks.tuning_peer import OptunaSide
from benchmarks.tuning_task import EPOCHS, FASHION, NETWORK, TRIALS, Point, Task, read_idx
from foretune.client import Client
from foretune.events import EventType
from service.embedded.stack import RunningStack, StackOptions, start

_TRAIN_ROWS, _TEST_ROWS = 10_000, 5_000
_BAR_SECONDS, _BAR_EPOCHS = 5.0, 2.0


@dataclass(frozen=True)
class Outcome:
    """One repeat: what Optuna reached, and when either side had it. None: never."""

    data: str
    seed: int
    target: float
    optuna_s: float
    optuna_epochs: int
    optuna_all_s: float
    optuna_all_epochs: int
    foretune_s: float | None
    foretune_epochs: int | None
    foretune_best: float
    foretune_all_s: float
    foretune_all_epochs: int

    @property
    def sooner(self) -> float:
        return self.optuna_s / self.foretune_s if self.foretune_s else 0.0

    @property
    def fewer_epochs(self) -> float:
        return self.optuna_epochs / self.foretune_epochs if self.foretune_epochs else 0.0


def main() -> None:
    """Runs the repeats, prints a line for each and the medians, writes the JSON file."""
    arguments = _arguments()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="ft-") as folder:
        tasks = [_task(name, Path(folder)) for name in arguments.only]
        with (
            start(StackOptions(data_dir=Path(folder) / "data", port=0)) as stack,
            Client(stack.url, stack.key_file.read_text().strip()) as client,
            OptunaSide(stack.plan.database_url, arguments.processes) as optuna,
        ):
            for task in tasks:
                if task.file is not None:
                    client.datasets.upload(task.file, name=task.data)
            settle({name: pid for name in stack.supervisor.names() if (pid := stack.supervisor.pid(name))})
            for task in tasks:
                for seed in range(arguments.seeds):
                    outcomes.append(_repeat(task, seed, arguments.our_trials, client, optuna))
                    _print_one(outcomes[-1])
            print(f"\n{arguments.processes} processes against {_workers(stack)} train worker(s)")
    for task in tasks:
        _print_all(task.data, [outcome for outcome in outcomes if outcome.data == task.data])
    arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    print(f"all of it: {arguments.json}")


def _repeat(task: Task, seed: int, trials: int, client: Client, optuna: OptunaSide) -> Outcome:
    theirs = optuna.tune(task, seed)
    target = max(point.value for point in theirs)
    ours = _tune(client, task, seed, target, trials)
    first, mine = _first(theirs, target), _first(ours, target)
    assert first is not None
    return Outcome(
        data=task.data,
        seed=seed,
        target=target,
        optuna_s=theirs[first].seconds,
        optuna_epochs=first + 1,
        optuna_all_s=theirs[-1].seconds,
        optuna_all_epochs=len(theirs),
        foretune_s=None if mine is None else ours[mine].seconds,
        foretune_epochs=None if mine is None else mine + 1,
        foretune_best=max(point.value for point in ours),
        foretune_all_s=ours[-1].seconds,
        foretune_all_epochs=len(ours),
    )


def _tune(client: Client, task: Task, seed: int, target: float, trials: int) -> list[Point]:
    """Every epoch of our experiment, as a reader of its stream sees them."""
    began = time.perf_counter()
    experiment = client.experiments.create(
        mode="managed",
        dataset=task.data,
        network=NETWORK,
        budget={"max_trials": trials, "max_epochs": EPOCHS, "target": target},
        priors="none",
        share_history=False,
        seed=seed,
    )
    points = []
    for event in client.stream(experiment.id):
        if event.type is EventType.TRIAL_MEASUREMENT:
            value = event.data["value"]
            points.append(Point(time.perf_counter() - began, float(str(value)) if value is not None else -1.0))
    return points


def _first(points: Sequence[Point], target: float) -> int | None:
    return next((number for number, point in enumerate(points) if point.value >= target), None)


def _task(name: str, folder: Path) -> Task:
    if name == "digits":
        return Task("digits", None)
    if not FASHION.is_dir():
        sys.exit(f"there is no {FASHION}: apt-get install dataset-fashion-mnist, or choose --only digits")
    parts = [("train", _TRAIN_ROWS), ("t10k", _TEST_ROWS)]
    images = [read_idx(FASHION / f"{part}-images-idx3-ubyte.gz")[:rows] for part, rows in parts]
    labels = [read_idx(FASHION / f"{part}-labels-idx1-ubyte.gz")[:rows] for part, rows in parts]
    file = folder / "fashion.npz"
    np.savez(file, X=np.concatenate(images).astype(np.float32) / 255.0, y=np.concatenate(labels).astype(np.int64))
    return Task("fashion", file)


def _workers(stack: RunningStack) -> int:
    return sum(name.startswith("train-") for name in stack.supervisor.names())


def _print_one(one: Outcome) -> None:
    ours = f"{one.foretune_s:7.1f} s {one.foretune_epochs:5d} epochs" if one.foretune_s else "  never reached"
    print(
        f"{one.data:8s} seed {one.seed}  target {one.target:.4f}  Optuna {one.optuna_s:7.1f} s"
        f" {one.optuna_epochs:5d} epochs (all: {one.optuna_all_s:.0f} s, {one.optuna_all_epochs})  ours {ours}"
        f" (best {one.foretune_best:.4f}, all: {one.foretune_all_s:.0f} s, {one.foretune_all_epochs})"
        f"  {one.sooner:5.2f}x sooner, {one.fewer_epochs:5.2f}x fewer epochs",
        flush=True,
    )


def _print_all(data: str, outcomes: Sequence[Outcome]) -> None:
    for name, ratios, bar in (
        ("sooner", [one.sooner for one in outcomes], _BAR_SECONDS),
        ("fewer epochs", [one.fewer_epochs for one in outcomes], _BAR_EPOCHS),
    ):
        middle = statistics.median(ratios)
        verdict = "held" if middle >= bar else "missed"
        print(
            f"{data:8s} {name:13s} median {middle:.2f}x, {min(ratios):.2f} to {max(ratios):.2f}"
            f" (bar {bar:g}x: {verdict})"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--seeds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--only", nargs="*", choices=("digits", "fashion"), default=["digits", "fashion"])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="Optuna's (one a core)")
    parser.add_argument("--our-trials", type=int, default=TRIALS, help="of ours, at most (as many as Optuna's)")
    parser.add_argument("--json", type=Path, default=Path("tuning_wallclock.json"))
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (2 if arguments.quick else 5)
    return arguments


if __name__ == "__main__":
    main()
