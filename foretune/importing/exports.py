"""JSON exports: runs of W&B (a list of runs with `config` and `summary`), and MLflow's answer to a search for runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from foretune.errors import InvalidHistory
from foretune.importing.runs import Found, Heading, Run, history
from foretune.importing.tables import value_of
from foretune.json_types import JsonObject, JsonValue
from foretune.states import TrialState

_ENDED_BADLY = frozenset({"failed", "crashed", "running", "pending", "scheduled"})


def read_wandb(path: Path, heading: Heading, columns: Mapping[str, str]) -> Found:
    """`[{"config": {…}, "summary": {…}, "state": "finished", "history": [{metric: value}, …]}, …]`, as
    `wandb.Api().runs(…)` gives them. Raises InvalidHistory.
    """
    runs = []
    for number, entry in enumerate(_list(path, _parsed(path), "runs")):
        config = {
            name: value["value"] if isinstance(value, dict) and "value" in value else value
            for name, value in _object(path, number, entry, "config").items()
            if not name.startswith("_")
        }
        steps = entry.get("history")
        said = steps if isinstance(steps, list) else []
        curve = [_number(step.get(heading.metric)) for step in said if isinstance(step, dict)]
        value = _object(path, number, entry, "summary").get(heading.metric)
        runs.append(_run(_named(config, columns), value, curve, entry.get("state")))
    return history(heading, runs)


def read_mlflow(path: Path, heading: Heading, columns: Mapping[str, str]) -> Found:
    """`{"runs": [{"info": {"status": …}, "data": {"params": [{key, value}], "metrics": [{key, value}]}}]}`, as
    MLflow's REST API answers `runs/search`. Raises InvalidHistory.
    """
    runs = []
    for number, entry in enumerate(_list(path, _parsed(path), "runs")):
        data = _object(path, number, entry, "data")
        settings = {key: value_of(str(value)) for key, value in _pairs(data.get("params"))}
        value = dict(_pairs(data.get("metrics"))).get(heading.metric)
        status = _object(path, number, entry, "info").get("status")
        runs.append(_run(_named(settings, columns), value, [], status))
    return history(heading, runs)


def _run(settings: Mapping[str, JsonValue], said: JsonValue, curve: list[float | None], state: JsonValue) -> Run:
    """`said` is the metric as it was logged: None where it was not, which is not to say that it was bad."""
    value = _number(said)
    if said is None or str(state).lower() in _ENDED_BADLY:
        return Run(settings, value, curve, TrialState.FAILED)
    return Run(settings, value, curve, TrialState.INFEASIBLE if value is None else TrialState.COMPLETED)


def _named(settings: Mapping[str, JsonValue], columns: Mapping[str, str]) -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {
        name: value for name, value in settings.items() if isinstance(value, str | int | float)
    }
    return {columns[name]: flat[name] for name in columns if name in flat} if columns else flat


def _parsed(path: Path) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InvalidHistory(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from error
    return parsed


def _list(path: Path, parsed: JsonValue, key: str) -> list[JsonObject]:
    found = parsed.get(key) if isinstance(parsed, dict) else parsed
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidHistory(f"{path}: a list of runs is expected, or an object with a list under {key!r}")
    return [one for one in found if isinstance(one, dict)]


def _object(path: Path, number: int, entry: JsonObject, key: str) -> JsonObject:
    found = entry.get(key, {})
    if isinstance(found, str):  # W&B keeps some as JSON within JSON.
        try:
            found = json.loads(found)
        except json.JSONDecodeError as error:
            raise InvalidHistory(f"{path}: run {number}: {key} is no JSON: {error.msg}") from error
    if not isinstance(found, dict):
        raise InvalidHistory(f"{path}: run {number}: {key} must be an object")
    return found


def _pairs(found: JsonValue) -> list[tuple[str, JsonValue]]:
    entries = found if isinstance(found, list) else []
    return [(str(one["key"]), one.get("value")) for one in entries if isinstance(one, dict) and "key" in one]


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
