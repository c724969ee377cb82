"""Which network is trained on what, and one such job as a history.

Every job of one network tries the same first settings, so that response surfaces can be compared point by point, and
then others of its own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Configuration, Space
from foretune.states import TrialState
from metalearner.encoding import Encoding
from metalearner.quasirandom import point
from workers.datasets.dataset import Dataset
from workers.datasets.meta_features import meta_features
from workers.datasets.prepare import prepare, views
from workers.engine import METRICS, Engine, EpochReport, FailureKind, trial_spec
from workers.engine.evaluation import GOALS
from workers.networks import Network, networks
from workers.starter.sources import sources
from workers.starter.variants import thinned, variants

_PROBES, _OWN = 24, 8
_MOST_ROWS = {"mlp": 1800, "cnn": 300, "gru": 400, "transformer": 400}
_EPOCHS = {"mlp": 12, "cnn": 5, "gru": 6, "transformer": 6}
_LATER, _LARGE = 5, 200_000
"""Perceptrons come first, so many variants ahead of the others, which on data of more numbers come later still."""
_DIGITS = 5


@dataclass(frozen=True)
class Job:
    """One network on one data set. `place` orders jobs: what is cheap and telling comes first."""

    network: Network
    dataset: Dataset
    place: int

    @property
    def name(self) -> str:
        return f"{self.network.name}-{self.dataset.name}"


def jobs() -> list[Job]:
    """All jobs: each network on every variant that it reads best in its own view, networks taking turns."""
    found = list(_jobs())
    return sorted(found, key=lambda job: (job.place, job.name))


def _jobs() -> Iterator[Job]:
    for base in sources():
        for number, dataset in enumerate(variants(base)):
            for network in networks().values():
                seen = network.name in _EPOCHS and dataset.task in network.tasks and network.view_for(views(dataset))
                if seen and (network.name == "mlp" or dataset.modality != "tabular"):
                    yield Job(network, dataset, number if network.name == "mlp" else number + _wait(dataset))


def _wait(dataset: Dataset) -> int:
    return _LATER * (2 if dataset.X.size > _LARGE else 1)


def run(job: Job, device: str = "cpu") -> JsonObject:
    """Trains a job's trials; the finished experiment in the form of `POST /v1/histories`."""
    network, dataset = job.network, _small_enough(job)
    view = network.view_for(views(dataset))
    assert view is not None
    metric = METRICS[dataset.task][0]
    space, max_epochs = network.space_for(dataset.task), _EPOCHS[network.name]
    settings = settings_of(space, job.name)
    engine = Engine(network, prepare(dataset, 0, view), device)
    curves: dict[str, list[float]] = {str(number): [] for number in range(len(settings))}
    seconds: dict[str, list[float]] = {name: [] for name in curves}
    diverged: set[str] = set()
    waiting = list(enumerate(settings))
    while waiting or engine.live:
        while waiting and engine.free:
            number, setting = waiting.pop(0)
            engine.admit(trial_spec(network, str(number), setting, max_epochs=max_epochs, seed=number, space=space))
        for report in engine.advance():
            _note(report, metric, curves, seconds, diverged)
            if report.finished:
                engine.release(report.trial_id)
    return {
        "name": job.name,
        "network": network.name,
        "space": space.to_json(),
        "metric": {"name": metric, "goal": GOALS[metric].value},
        "max_epochs": max_epochs,
        "features": _features(dataset),
        "trials": [
            {
                "hyperparameters": dict(setting),
                "curve": [_rounded(value) for value in curves[str(number)]],
                "seconds": [_rounded(second) for second in seconds[str(number)]],
                "state": (TrialState.INFEASIBLE if str(number) in diverged else TrialState.COMPLETED).value,
            }
            for number, setting in enumerate(settings)
        ],
    }


def _note(
    report: EpochReport,
    metric: str,
    curves: dict[str, list[float]],
    seconds: dict[str, list[float]],
    diverged: set[str],
) -> None:
    if report.failure is None:
        curves[report.trial_id].append(report.metrics[metric])
        seconds[report.trial_id].append(report.seconds)
        return
    if report.failure_kind is not FailureKind.DIVERGED:
        raise RuntimeError(f"trial {report.trial_id}: {report.failure}")
    diverged.add(report.trial_id)


def _small_enough(job: Job) -> Dataset:
    """What trains in a minute or two: of a large data set the first rows of a seeded order."""
    most, dataset = _MOST_ROWS[job.network.name], job.dataset
    if dataset.modality == "text" or dataset.rows <= most:
        return dataset
    return thinned(dataset, most)


def settings_of(space: Space, name: str) -> list[Configuration]:
    """The expert's neighbourhood is not favoured: quasi-random points, the same for all jobs, then the job's own."""
    encoding = Encoding(space)

    def at(seed: int, index: int) -> Configuration:
        return encoding.decode(encoding.rows(point(encoding.width, seed, index)[None, :])[0])

    own = zlib.crc32(name.encode())
    found = [at(0, index) for index in range(_PROBES)] + [at(own, index) for index in range(_OWN)]
    return [{key: _short(value) for key, value in setting.items()} for setting in found]


def _short(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _features(dataset: Dataset) -> JsonObject:
    found: JsonObject = dict(meta_features(dataset))
    found |= {"task": dataset.task.value, "modality": dataset.modality, "rows": float(dataset.rows)}
    if dataset.classes is not None:
        found["classes"] = float(dataset.classes)
    return {key: _short(value) for key, value in found.items()}


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
