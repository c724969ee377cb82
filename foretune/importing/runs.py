"""Runs of any origin, and the history that they make together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from foretune.errors import ForetuneError, InvalidHistory
from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Scalar
from foretune.spaces import AnyParameter, Space
from foretune.states import TrialState

_LOG_SPREAD = 50.0
"""Positive numbers that spread over more than this were searched on a logarithmic scale, as far as one can tell."""
_MOST_CHOICES = 50


@dataclass(frozen=True)
class Run:
    """One trial. `curve`: the metric by epoch; `value`: its final or best value, None where there is none."""

    settings: Mapping[str, JsonValue]
    value: float | None
    curve: Sequence[float | None] = ()
    state: TrialState = TrialState.COMPLETED


@dataclass(frozen=True)
class Found:
    """A history, and what was left out or guessed on the way, in sentences."""

    line: JsonObject
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heading:
    """What a history is called and how its runs are judged."""

    name: str
    metric: str
    goal: Goal
    features: Mapping[str, float | str] = field(default_factory=dict)


def history(heading: Heading, runs: Sequence[Run], known: Mapping[str, AnyParameter] | None = None) -> Found:
    """The runs as one history. `known`: the parameters of which the source says type and range; the others are guessed
    from the values. Raises InvalidHistory when nothing can be learned from the runs.
    """
    usable = [run for run in runs if run.state in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.INFEASIBLE)]
    if not any(run.value is not None for run in usable):
        raise InvalidHistory(f"{heading.name}: none of its {len(runs)} runs has a value of {heading.metric}")
    notes: list[str] = []
    if len(usable) < len(runs):
        notes.append(f"{len(runs) - len(usable)} runs that failed, never ended or have no value are left out")
    parameters, fixed = _parameters(usable, known or {}, notes)
    guessed = [one.name for one in parameters if one.name not in (known or {})]
    if guessed:
        notes.append(f"type, range and scale are guessed from the values: {', '.join(guessed)}")
    if not parameters:
        raise InvalidHistory(f"{heading.name}: no hyperparameter differs between its runs")
    names = {parameter.name for parameter in parameters}
    try:
        space = Space(tuple(parameters))
    except ForetuneError as error:
        raise InvalidHistory(f"{heading.name}: {error.message}") from error
    line: JsonObject = {
        "name": heading.name,
        "space": space.to_json(),
        "metric": {"name": heading.metric, "goal": heading.goal.value},
        "max_epochs": max(1, *(len(run.curve) for run in usable)),
        "features": dict(heading.features),
        "fixed": fixed,
        "trials": [_trial(run, names) for run in usable],
    }
    return Found(line, tuple(notes))


def _trial(run: Run, names: set[str]) -> JsonObject:
    return {
        "hyperparameters": {name: value for name, value in run.settings.items() if name in names},
        "curve": [_finite(value) for value in run.curve],
        "value": _finite(run.value),
        "state": run.state.value,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _parameters(
    runs: Sequence[Run], known: Mapping[str, AnyParameter], notes: list[str]
) -> tuple[list[AnyParameter], JsonObject]:
    """The parameters that were searched, those that others depend on first, and what all runs had in common."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    everywhere = [name for name in names if all(name in run.settings for run in runs)]
    parameters, fixed = [], {}
    for name in everywhere:
        values = [run.settings[name] for run in runs]
        parameter = known.get(name) or guess(name, values)
        if parameter is not None:
            parameters.append(parameter)
        elif all(value == values[0] for value in values):
            fixed[name] = values[0]
        else:
            notes.append(f"{name} is left out: its values are of no one type")
    parents = [one for one in parameters if isinstance(one, Categorical | Bool)]
    for name in names:
        if name in everywhere:
            continue
        parameter = known.get(name) or guess(name, [run.settings[name] for run in runs if name in run.settings])
        condition = _condition(name, runs, parents)
        if parameter is None or condition is None:
            notes.append(f"{name} is left out: not all runs have it, and nothing says when")
        else:
            parameters.append(_when(parameter, condition))
    return parameters, fixed


def _condition(
    name: str, runs: Sequence[Run], parents: Sequence[Categorical | Bool]
) -> tuple[str, list[Scalar]] | None:
    """The parameter whose value decides whether a run has `name`, and the values with which it has."""
    for parent in parents:
        having = [run.settings[parent.name] for run in runs if name in run.settings]
        lacking = [run.settings[parent.name] for run in runs if name not in run.settings]
        if not any(value in lacking for value in having):
            scalars = [value for value in having if isinstance(value, str | int | float)]
            return parent.name, [value for place, value in enumerate(scalars) if value not in scalars[:place]]
    return None


def _when(parameter: AnyParameter, condition: tuple[str, list[Scalar]]) -> AnyParameter:
    parent, values = condition
    return replace(parameter, when={parent: values})


def guess(name: str, values: Sequence[JsonValue]) -> AnyParameter | None:
    """The parameter that took these values; None where they do not differ or are of no one type."""
    # True and 1 are equal, and different values.
    different = list({(isinstance(value, bool), str(value)): value for value in values}.values())
    if len(different) < 2:
        return None
    if all(isinstance(value, bool) for value in different):
        return Bool(name)
    numbers = [value for value in different if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(different):
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low > _LOG_SPREAD
        if all(isinstance(value, int) for value in numbers):
            return Int(name, int(low), int(high), log=log)
        return Float(name, float(low), float(high), log=log)
    if all(isinstance(value, str) for value in different) and len(different) <= _MOST_CHOICES:
        return Categorical(name, sorted(str(value) for value in different))
    return None
