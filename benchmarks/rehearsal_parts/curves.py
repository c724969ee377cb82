"""Real learning curves of settings all over the space: what a landscape is drawn through."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.rehearsal_parts.made import clusters, images, taught
from benchmarks.tuning_task import EPOCHS, FASHION, NETWORK, Task, read_idx
from foretune.json_types import JsonObject
from foretune.spaces import Configuration
from metalearner import quasirandom
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.expert import Belief
from workers.engine import Engine, trial_spec
from workers.networks import get_network

SPLIT = 7
"""The split into training and validation part: one, so that differences are those of settings and of luck."""
_NOISE = 0.45
"""On digits, in deviations of a pixel: without it most settings are nearly perfect."""
_SLOTS = 2
_REPEATS_OF_DEFAULT = 10
_DIVERGED = 0.0
_BEST, _OF_THE_OTHER, _MOVED, _MOVE = 20, 0.3, 0.5, 0.08


@dataclass(frozen=True)
class Setting:
    """A configuration to train, and the seed of its trial."""

    name: str
    configuration: Configuration
    seed: int


@dataclass(frozen=True)
class Curve:
    """A configuration and its validation accuracy after each epoch; a diverged one stays at 0."""

    configuration: Configuration
    values: tuple[float, ...]


def _noisy_digits(seed: int) -> tuple[Array, Array]:
    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    return images + np.random.default_rng(seed).normal(0.0, _NOISE * float(images.std()), images.shape), labels


def _fashion(first: int, rows: int, *, halved: bool) -> tuple[Array, Array]:
    """Rows that `benchmarks.tuning_wallclock` does not use: it reads the first ten thousand."""
    pixels = read_idx(FASHION / "train-images-idx3-ubyte.gz")[first : first + rows] / 255.0  # (rows, 28, 28)
    if halved:
        pixels = pixels.reshape(rows, 14, 2, 14, 2).mean((2, 4))
    return pixels.reshape(rows, -1), read_idx(FASHION / "train-labels-idx1-ubyte.gz")[first : first + rows]


TASKS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "digits-a": lambda: _noisy_digits(1000),
    "digits-b": lambda: _noisy_digits(1001),
    "classes-a": lambda: clusters(20, 8, 4, 0),
    "classes-b": lambda: clusters(40, 12, 6, 1),
    "classes-c": lambda: clusters(60, 20, 8, 2),
    "classes-d": lambda: clusters(20, 8, 4, 3),
    "taught-a": lambda: taught(1500, 15, 3, 1000),
    "taught-b": lambda: taught(4000, 30, 6, 1001),
    "taught-c": lambda: taught(8000, 60, 10, 1002),
    "images-a": lambda: images(4000, 14, 0.9, 1000),
    "images-b": lambda: images(8000, 14, 1.4, 1001),
    "images-c": lambda: images(6000, 28, 1.1, 1002),
    "fashion-14": lambda: _fashion(10_000, 4_000, halved=True),
    "fashion-28-a": lambda: _fashion(12_000, 15_000, halved=False),
    "fashion-28-b": lambda: _fashion(27_000, 15_000, halved=False),
}
"""Development data alone: none of it is in a report. What ships as a prior mean was learned from classes, taught
and images: there our jobs know more than elsewhere."""


def start(count: int) -> list[Setting]:
    """So many settings from all of the space, as many around the default, and the default itself some times."""
    network = get_network(NETWORK)
    default, encoding = network.default_configuration(network.space), Encoding.of(network.space)
    belief = Belief(encoding, encoding.encode(default))
    settings = [Setting(f"default-{number}", default, 3000 + number) for number in range(_REPEATS_OF_DEFAULT)]
    for number in range(count):
        anywhere = quasirandom.point(encoding.width, 99, number)
        near = belief.spread(quasirandom.point(encoding.width, 98, number))
        for kind, point, seed in (("anywhere", anywhere, 1000), ("near", near, 2000)):
            configuration = encoding.decode(encoding.rows(point[None, :])[0])
            settings.append(Setting(f"{kind}-{number}", configuration, seed + number))
    return settings


def near_the_best(curves: list[Curve], count: int) -> list[Setting]:
    """Settings like the best twenty: some of another one's values, others moved a little."""
    encoding, generator = Encoding.of(get_network(NETWORK).space), np.random.default_rng(0)
    best = sorted(curves, key=lambda one: -max(one.values))[:_BEST]
    rows = encoding.encode_all([one.configuration for one in best])
    settings = []
    for number in range(count):
        row, other = rows[generator.choice(len(rows), 2)]
        row = np.where(generator.random(len(row)) < _OF_THE_OTHER, other, row)
        row = np.where(np.isnan(row), generator.random(len(row)), row)
        moves = _MOVE * generator.standard_normal(len(row)) * (generator.random(len(row)) < _MOVED)
        point = np.clip(row + moves, 0.0, 1.0)
        settings.append(Setting(f"best-{number}", encoding.decode(encoding.rows(point[None, :])[0]), 4000 + number))
    return settings


def all_trained(task: str, settings: int, folder: Path) -> list[Curve]:
    """The curves of so many settings of each third: all over the space, around the default, near the best of those."""
    curves = trained(task, start(settings), folder)
    return curves + trained(task, near_the_best(curves, settings), folder)


def refuse_missing(tasks: Iterable[str]) -> None:
    """Ends the program where a task's data are not installed."""
    if not FASHION.is_dir() and any(task.startswith("fashion") for task in tasks):
        sys.exit(f"there is no {FASHION}: apt-get install dataset-fashion-mnist, or choose other --tasks")


def trained(task: str, settings: list[Setting], folder: Path) -> list[Curve]:
    """The curves of these settings, those in `folder` read and the others trained and kept there: resumable."""
    kept = folder / f"{task}.jsonl"
    known = {one["name"]: one for one in _lines(kept)}
    missing = [one for one in settings if one.name not in known]
    if missing:
        with kept.open("a") as file:
            for record in _train(_task(task, folder), missing):
                known[str(record["name"])] = record
                file.write(json.dumps(record) + "\n")
                file.flush()
    return [_curve(known[one.name]) for one in settings]


def _lines(file: Path) -> list[JsonObject]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _curve(record: JsonObject) -> Curve:
    values = [*record["values"], *[_DIVERGED] * EPOCHS][:EPOCHS]
    return Curve(record["configuration"], tuple(values))


def _task(name: str, folder: Path) -> Task:
    file = folder / f"{name}.npz"
    if not file.exists():
        rows, labels = TASKS[name]()
        np.savez(file, X=rows.astype(np.float32), y=labels.astype(np.int64))
    return Task(name, file)


def _train(task: Task, settings: list[Setting]) -> Iterator[JsonObject]:
    """Each setting's name, configuration and values, as soon as it is through."""
    network = get_network(NETWORK)
    engine = Engine(network, task.load(SPLIT), "cpu", capacity=_SLOTS)
    waiting, values = list(reversed(settings)), dict[str, list[float]]()
    by_name = {one.name: one for one in settings}
    while waiting or engine.live:
        while engine.free and waiting:
            one = waiting.pop()
            values[one.name] = []
            engine.admit(
                trial_spec(network, one.name, one.configuration, max_epochs=EPOCHS, seed=one.seed, space=network.space)
            )
        for report in engine.advance():
            name = report.trial_id
            if report.failure is None:
                values[name].append(float(report.metrics["val_accuracy"]))
            if report.finished or report.failure is not None:
                engine.release(name)
                yield {"name": name, "configuration": by_name[name].configuration, "values": values.pop(name)}
