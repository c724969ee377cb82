"""Recommendations before any trial: coverage of the 80 % intervals, regret of the first choice, latency over HTTP.

    FORETUNE_BENCH_DATA=… python -m benchmarks.recommendations [--seeds N] [--histories N] [--requests N]

Coverage and regret: LCBench, one data set left out, 100 random configurations a history; the outcome of a setting is
its own row of the table. Regret is 0 at the best of the table and 1 at its median. Latency: an embedded stack,
`--histories` imported histories of 100 trials, requests that differ in their features: no answer is a remembered one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from foretune.metrics import Goal
from foretune.parameters import Float, Int
from foretune.spaces import Configuration, Space
from metalearner import FeatureLikeness, FittedModel, Problem, Task, TaskHistory, fit, foresee
from metalearner.arrays import Array
from metalearner.encoding import Encoding

SPACE = Space.of(
    Int("batch_size", 16, 512, log=True),
    Float("learning_rate", 1e-4, 0.1, log=True),
    Float("momentum", 0.1, 0.99, log=True),
    Float("weight_decay", 1e-5, 0.1, log=True),
    Int("num_layers", 1, 5),
    Int("max_units", 64, 1024, log=True),
    Float("max_dropout", 0.0, 1.0),
)
PROBLEM = Problem(SPACE, Goal.MAXIMIZE, 52, 1, 0)
TRIALS = 100


def _table() -> tuple[list[Configuration], dict[str, Array]]:
    data = np.load(Path(os.environ["FORETUNE_BENCH_DATA"]) / "lcbench_dev.npz")
    rows = [
        {p.name: round(value) if isinstance(p, Int) else float(value) for p, value in zip(SPACE.parameters, row)}  # noqa: B905
        for row in data["X"].tolist()
    ]
    return rows, {name: data[name][:, -1, 1] for name in data.files if name.startswith("task_")}


def _history(name: str, rows: list[Configuration], values: Array, generator: np.random.Generator) -> TaskHistory:
    chosen = generator.choice(len(rows), TRIALS, replace=False)
    columns = {key: [rows[i][key] for i in chosen] for key in SPACE.by_name}
    task = Task("val_accuracy", Goal.MAXIMIZE, name, "mlp")
    return TaskHistory(name, task, SPACE, columns, values[chosen].tolist())


def coverage_and_regret(seeds: int) -> None:
    """Prints the share of outcomes in their interval, calibrated and not, and the regret of the first choice."""
    rows, values = _table()
    encoding = Encoding(SPACE)
    encoded = np.array([encoding.encode(row) for row in rows])
    likeness = FeatureLikeness()
    hits: dict[str, list[bool]] = {"as forecast": [], "calibrated": []}
    regrets, random = [], []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        histories = [_history(name, rows, outcome, generator) for name, outcome in values.items()]
        for held_out in histories:
            others = [one for one in histories if one is not held_out]
            weights = likeness.weights(held_out.task, [one.task for one in others])
            outcomes = values[held_out.reference]
            model = fit(others)
            for name, known in (("as forecast", FittedModel(model.kernels)), ("calibrated", model)):
                found, _ = foresee(PROBLEM, held_out.task, others, weights, 3, known)
                places = [
                    int(((encoded - encoding.encode(one.item.configuration)) ** 2).sum(1).argmin()) for one in found
                ]
                hits[name] += [
                    one.predicted.low <= outcomes[place] <= one.predicted.high
                    for one, place in zip(found, places, strict=True)
                    if one.predicted is not None
                ]
            scale = outcomes.max() - np.median(outcomes)
            regrets.append(float((outcomes.max() - outcomes[places[0]]) / scale))
            random.append(float((outcomes.max() - outcomes.mean()) / scale))
    covered = {name: round(float(np.mean(found)), 3) for name, found in hits.items()}
    print(f"coverage of 80 % intervals: {covered}, of {len(hits['calibrated'])} outcomes")
    print(f"regret of the first choice: {np.mean(regrets):.3f}; of a random one: {np.mean(random):.3f}")


def latency(count: int, requests: int) -> None:
    """Prints the time of the first request, and percentiles of those after it, through HTTP."""
    from service.embedded.stack import StackOptions, start

    generator = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory(prefix="ft-") as folder,
        start(StackOptions(data_dir=Path(folder), port=0, train_workers=1)) as stack,
    ):
        key = stack.key_file.read_text().strip()
        with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
            for start_at in range(0, count, 50):
                lines = [json.dumps(_line(n, generator)) for n in range(start_at, min(start_at + 50, count))]
                client.post(
                    "/v1/histories", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}
                ).raise_for_status()
            seconds = []
            for _ in range(requests + 1):
                body = {"features": _features(generator), "space": SPACE.to_json(), "count": 3}
                body["metric"] = {"name": "val_accuracy", "goal": "maximize"}
                began = time.perf_counter()
                answer = client.post("/v1/recommendations", json=body)
                seconds.append(time.perf_counter() - began)
                answer.raise_for_status()
                assert answer.json()["confidence"] != "none" or len(seconds) == 1, answer.text
    p50, p99 = np.percentile(seconds[1:], [50, 99]) * 1e3
    print(f"{count} histories: first {seconds[0]:.2f} s, then p50 {p50:.0f} ms, p99 {p99:.0f} ms of {requests}")


def _features(generator: np.random.Generator) -> dict[str, float]:
    return {"rows": float(generator.integers(100, 100_000)), "classes": float(generator.integers(2, 20))}


def _line(number: int, generator: np.random.Generator) -> dict[str, object]:
    best = generator.normal(-2.0, 0.3)
    configurations = [SPACE.from_unit(point) for point in generator.random((TRIALS, SPACE.dimensions)).tolist()]
    values = [1.0 / (1.0 + abs(np.log10(float(str(one["learning_rate"]))) - best)) for one in configurations]
    return {
        "name": f"history {number}",
        "space": SPACE.to_json(),
        "metric": {"name": "val_accuracy", "goal": "maximize"},
        "max_epochs": 20,
        "features": _features(generator),
        "trials": [{"hyperparameters": one, "value": value} for one, value in zip(configurations, values, strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    if options.seeds:
        coverage_and_regret(options.seeds)
    if options.requests:
        latency(options.histories, options.requests)


if __name__ == "__main__":
    main()
