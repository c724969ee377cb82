"""The same as `benchmarks.transfer` through the HTTP API: nothing that a proposal needs is lost on the way.

    FORETUNE_BENCH_DATA=… python -m benchmarks.transfer_api [--tables taskset lcbench] [--trials 40] [--seeds 1]

An embedded stack; for each task a project of its own, into which the other tasks of the table are imported as histories
(`POST /v1/histories`), and one external experiment that is asked and told trial by trial. Values are those of the
nearest row of the table. Beside it stands the same run in this process, without a service.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np

from benchmarks.transfer_parts.methods import METHODS
from benchmarks.transfer_parts.runs import run
from benchmarks.transfer_parts.sources import Setting, histories
from benchmarks.transfer_parts.tables import TABLES, Array, Table
from foretune.client import Client
from foretune.json_types import JsonObject
from metalearner import TaskHistory

_POINTS = (1, 3, 5, 10, 15, 25, 40)


def main() -> None:
    arguments = _arguments()
    from service.db.session import Database
    from service.embedded.stack import StackOptions, start

    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="ft-") as folder,
        start(StackOptions(data_dir=Path(folder), port=0, train_workers=1)) as stack,
    ):
        database = Database(stack.plan.database_url, pool_size=2)
        for name in arguments.tables:
            table = TABLES[name]()
            for_api, in_process = [], []
            for seed in range(arguments.seeds):
                for task in range(len(table.tasks)):
                    key = _key_of_new_project(database, f"{name}-{task}-{seed}")
                    with Client(stack.url, key) as client:
                        for_api.append(_through_api(client, table, task, seed, arguments.trials))
                    own = run(table, task, Setting(), METHODS["foretune"], seed, arguments.trials)
                    in_process.append(np.minimum.accumulate(own.regrets))
                    print(f"{name} {table.tasks[task]} {_shown(for_api[-1][None])}", flush=True)
            print(f"{name}, {len(for_api)} runs: through the API {_shown(np.array(for_api))}")
            print(f"{name}, {len(for_api)} runs: in process      {_shown(np.array(in_process))}")
        database.close()


def _key_of_new_project(database: object, name: str) -> str:
    from foretune.wire.service import KeyRequest
    from service.db.session import Database
    from service.usecases import keys

    assert isinstance(database, Database)
    with database.transaction() as tx:
        return keys.create_key(tx, keys.create_project(tx, name).id, KeyRequest(name="benchmark")).key


def _through_api(client: Client, table: Table, task: int, seed: int, trials: int) -> Array:
    """The best regret after each trial: (trials,)."""
    answer = client.import_histories([_line(table, one) for one in histories(table, task, Setting(), seed)])
    assert not answer.errors, answer.errors
    regrets = table.regrets(task)
    experiment = client.experiments.create(
        mode="external",
        name="target",
        metric=(table.metric, table.goal.value),
        space=list(table.space.parameters),
        budget={"max_trials": trials, "max_epochs": 1},
        seed=seed,
    )
    reached: list[float] = []
    begun = time.perf_counter()
    for trial in experiment.trials():
        if not reached:
            print(f"first proposal: {trial.origin} after {time.perf_counter() - begun:.2f} s; ", end="")
        place = table.place(trial.hyperparameters)
        value = table.value(task, place)
        if value is None:
            trial.infeasible("diverged")
        else:
            trial.complete(value)
        reached.append(float(regrets[place]))
    return np.minimum.accumulate(reached)


def _line(table: Table, history: TaskHistory) -> JsonObject:
    names = list(history.columns)
    rows = zip(*(history.columns[name] for name in names), strict=True)
    return {
        "name": history.reference,
        "space": table.space.to_json(),
        "metric": {"name": table.metric, "goal": table.goal.value},
        "max_epochs": 1,
        "trials": [
            {"hyperparameters": dict(zip(names, row, strict=True)), "value": value}
            if value is not None
            else {"hyperparameters": dict(zip(names, row, strict=True)), "state": "INFEASIBLE"}
            for row, value in zip(rows, history.values, strict=True)
        ],
    }


def _shown(regrets: Array) -> str:
    return " ".join(f"@{n} {regrets[:, n - 1].mean():.4f}" for n in _POINTS if n <= regrets.shape[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer_api", description=__doc__)
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=["taskset", "lcbench"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
