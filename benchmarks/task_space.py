"""Does the metric space of tasks earn its place? `python -m benchmarks.task_space [--jobs FOLDER] [--seeds 3]`

Reads the histories that ship with the service, or those in a folder of JSON files, each what `POST /v1/histories`
takes, and judges on families left out: all variants of one data set are one family.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import orjson

from metalearner import TaskHistory
from metalearner.task_judging import AFTER, ARMS, judge
from workers.starter.shelf import PREFIX, history_of, starter_histories


def read(folder: Path | None) -> list[TaskHistory]:
    if folder is None:
        return list(starter_histories())
    return [history_of(orjson.loads(path.read_bytes())) for path in sorted(folder.glob("*.json"))]


def family(history: TaskHistory) -> str:
    """The data set that a history's own is a variant of: histories are named `network-name.variant`."""
    return history.reference.removeprefix(PREFIX).removeprefix(f"{history.task.network}-").split(".")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=Path, help="folder of histories; those that ship with the service when absent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=100.0, help="for all trainings of one seed")
    said = parser.parse_args()
    histories = read(said.jobs)
    families = [family(one) for one in histories]
    print(f"{len(histories)} histories of {len(set(families))} families")
    found = [judge(histories, seed=seed, seconds=said.seconds, families=families) for seed in range(said.seeds)]
    judged = [one for one in found if one is not None]
    if not judged:
        print("too few to train on: the portfolio stands without weights")
        return
    for arm in ARMS:
        regrets = ", ".join(
            f"@{k} {np.mean(values):.3f} ± {np.std(values):.3f}"
            for k, values in ((k, [one.regret(arm, k) for one in judged]) for k in AFTER)
        )
        print(f"{arm:12} regret {regrets}  agreement {np.mean([one.agreement(arm) for one in judged]):.3f}")
    print("wins:", [one.wins for one in judged])


if __name__ == "__main__":
    main()
