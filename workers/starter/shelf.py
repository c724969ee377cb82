"""The packed starter history: gzipped JSON lines, each what `POST /v1/histories` would take."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import orjson

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.spaces import Space
from foretune.states import TrialState
from metalearner import Task, TaskHistory

PACKED = Path(__file__).with_name("histories.jsonl.gz")
PREFIX = "starter_"
"""References of these histories begin so; no history of a user does."""


def pack(lines: Iterable[bytes]) -> bytes:
    """Histories as one file; the same lines give the same bytes."""
    return gzip.compress(b"\n".join(lines) + b"\n", mtime=0)


@lru_cache(maxsize=1)
def starter_histories() -> tuple[TaskHistory, ...]:
    """What ships with this version; read once a process. Empty where the file is missing."""
    if not PACKED.exists():
        return ()
    return tuple(history_of(orjson.loads(line)) for line in gzip.decompress(PACKED.read_bytes()).splitlines())


def name_of(history: TaskHistory) -> str:
    """What a person reads: the network and the data set."""
    return f"starter: {history.reference.removeprefix(PREFIX)}"


def history_of(line: JsonObject) -> TaskHistory:
    """A line as the meta-learner sees it."""
    space, metric, trials = line["space"], line["metric"], line["trials"]
    features, name = line["features"], str(line["name"])
    assert isinstance(space, list)
    assert isinstance(metric, dict)
    assert isinstance(trials, list)
    assert isinstance(features, dict)
    goal = Goal(str(metric["goal"]))
    said = {key: value for key, value in features.items() if isinstance(value, str | int | float)}
    read = Space.from_json(space)
    return TaskHistory(
        reference=f"{PREFIX}{name}",
        task=Task(str(metric["name"]), goal, None, str(line["network"]), said),
        space=read,
        columns={one.name: [_setting(trial, one.name) for trial in trials] for one in read.parameters},
        values=[_value(trial, goal) for trial in trials],
    )


def _setting(trial: JsonValue, name: str) -> JsonValue:
    assert isinstance(trial, dict)
    setting = trial["hyperparameters"]
    assert isinstance(setting, dict)
    return setting.get(name)


def _value(trial: JsonValue, goal: Goal) -> float | None:
    """The best value of a trial; None where it diverged."""
    assert isinstance(trial, dict)
    curve = trial["curve"]
    assert isinstance(curve, list)
    values = [float(value) for value in curve if isinstance(value, int | float)]
    if trial["state"] == TrialState.INFEASIBLE.value or not values:
        return None
    return max(values, key=lambda value: goal.sign * value)
