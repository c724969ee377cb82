"""What it costs to fit a model of a project's histories: time and memory for 100, 300 and 1,000 of 100 trials each.

    python -m benchmarks.fitting [--histories 100 300 1000] [--trials 100]

Everything is real: histories in an embedded Postgres, the task that workers run, its chunks with their transactions,
calibration and replay. Then twenty histories are added and the model is fitted again, which must cost what is new.
Seconds are of the wall and of this process; the bar is ten minutes on two cores for 1,000, and a cost about linear.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import orjson

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space

_SPACE: list[JsonValue] = [
    {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1.0, "log": True},
    {"name": "weight_decay", "type": "float", "low": 1e-6, "high": 0.1, "log": True},
    {"name": "momentum", "type": "float", "low": 0.0, "high": 0.99},
    {"name": "width", "type": "int", "low": 16, "high": 512, "log": True},
    {"name": "depth", "type": "int", "low": 1, "high": 5},
    {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
    {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam", "adamw"]},
]
_NEW = 20


def main() -> None:
    arguments = _arguments()
    from service.db import migrate
    from service.embedded.servers import embedded_servers
    from service.settings import settings

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ft-") as folder, embedded_servers(Path(folder)) as servers:
        migrate.upgrade(servers.database_url)
        os.environ |= {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "ARTIFACTS_URL": f"file://{folder}/artifacts",
        }
        settings.cache_clear()
        print(
            "histories   wall s   CPU s   ms a history   again with 20 new: wall s   peak MiB   regret: model, random"
        )
        for count in arguments.histories:
            print(_row(count, arguments.trials), flush=True)


def _row(count: int, trials: int) -> str:
    from foretune.wire.service import KeyRequest
    from service.usecases import keys, metalearner
    from workers.process import this_process

    process = this_process()
    with process.database.transaction() as tx:
        project = keys.create_project(tx, f"fit-{count}").id
        keys.create_key(tx, project, KeyRequest(name="benchmark"))
    _remember(project, range(count), trials)
    wall, cpu = _fit(project)
    _remember(project, range(count, count + _NEW), trials)
    again, _ = _fit(project)
    with process.database.reading() as tx:
        found = metalearner.describe(tx, project)
    assert found.version == 2, found.versions
    scores = found.versions[0].scores
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{count:9d} {wall:8.1f} {cpu:7.1f} {1e3 * cpu / count:14.1f} {again:27.1f} {peak:10.0f}"
        f"   {scores['model']:.3f}, {scores['random']:.3f}"
    )


def _remember(project: str, numbers: range, trials: int) -> None:
    from service.usecases import histories
    from workers.process import this_process

    space = Space.from_json(_SPACE)
    for number in numbers:
        generator = np.random.default_rng([number, trials])
        points = generator.random((trials, space.dimensions))
        best = 0.5 + 0.15 * np.random.default_rng(number % 10).standard_normal(space.dimensions)
        losses = ((points - best) ** 2).sum(1) + 0.05 * generator.standard_normal(trials)
        told: list[JsonValue] = [
            {"hyperparameters": space.from_unit(point), "value": float(loss)}
            for point, loss in zip(points.tolist(), losses, strict=True)
        ]
        line: JsonObject = {
            "name": f"job {number}",
            "space": _SPACE,
            "metric": "val_loss",
            "max_epochs": 10,
            "features": {"rows": 1000 + 100 * (number % 10), "classes": 2 + number % 10, "modality": "tabular"},
            "trials": told,
        }
        with this_process().database.transaction() as tx:
            histories.import_line(tx, project, orjson.dumps(line))


def _fit(project: str) -> tuple[float, float]:
    """Seconds of the wall and of the processor, chunk after chunk as messages would bring them."""
    from service.db import models
    from service.usecases import fitting
    from workers.fitting import fit_project
    from workers.process import this_process

    database = this_process().database
    begun, cpu = time.perf_counter(), time.process_time()
    with database.transaction() as tx:
        assert fitting.request(tx, project, again=False)
    while True:
        fit_project(this_process(), project)
        with database.reading() as tx:
            newest, *_ = models.listed(tx, project, 1)
        if newest.finished_at is not None:
            break
    return time.perf_counter() - begun, time.process_time() - cpu


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting", description=__doc__)
    parser.add_argument("--histories", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--trials", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
