"""Finished experiments as sources of knowledge: their trials in the space of a task.

Symbols: n trials of a history, D dimensions and P feature columns of the target space.

Encoding: a parameter of the target space takes its values from the parameter of the history with the same role, or with
the same name; values are compared in canonical units, not by position in a range. A value a little outside the target's
range is moved to its end; a trial with one far outside says nothing here. What a history did not tune is what it held
fixed, else the expert's default, else the middle of the range.

Outcomes: the normal score of a trial's rank within its history, Φ⁻¹((rank + ½) / n), less is better (a Gaussian copula:
Salinas et al. 2020, arXiv 1909.13595). Diverged trials share the worst rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.roles import guess_role
from foretune.schedules import SEARCH_BOUNDS, SHAPE_FIELDS, ScheduleShape
from foretune.spaces import AnyParameter, Configuration, Space
from metalearner.arrays import Array, Index, Mask, ranks
from metalearner.encoding import Encoding

_LEAST_COVERAGE = 1 / 3
"""A history that speaks of fewer of the target's parameters says nothing about it."""
_FACTOR = 2.0
"""How far outside a logarithmic range a value may lie; of a linear one, a quarter of its length."""
_NEAR_CHOICE = 1.5
_LARGEST_LOSS = 1e100
_KEPT_VIEWS = 4


@dataclass(frozen=True)
class Task:
    """What is known of a task before any trial has run. `dataset`: what names the data, equal only for the same."""

    metric: str
    goal: Goal
    dataset: str | None = None
    network: str | None = None
    features: Mapping[str, float | str] = field(default_factory=dict)

    @cached_property
    def kind(self) -> str | None:
        """What the features say that is to be learned; None where they do not."""
        if isinstance(task := self.features.get("task"), str) and task:
            return task
        if isinstance(classes := self.features.get("classes"), int | float):
            return "classification" if classes > 1 else "regression"
        return None


@dataclass(frozen=True)
class Column:
    """One parameter's values in the n trials of a history, decoded once for all spaces that it is mapped to."""

    values: Sequence[JsonValue]

    @cached_property
    def inactive(self) -> Mask:
        if None not in self.values:
            return np.zeros(len(self.values), dtype=bool)
        return np.array([value is None for value in self.values], dtype=bool)

    @cached_property
    def numbers(self) -> Array:
        """(n,), NaN for what is none."""
        if set(map(type, self.values)) <= {float, int}:
            return np.array(self.values, dtype=np.float64)
        return np.array([_number(value) for value in self.values])

    @cached_property
    def bools(self) -> tuple[Array, Mask]:
        units = np.array([[0.75 if value else 0.25] for value in self.values])
        return units, np.array([isinstance(value, bool) for value in self.values], dtype=bool)

    @cached_property
    def different(self) -> tuple[list[JsonValue], Index]:
        """The different words and numbers, and which of them each value is."""
        # True and 1 are equal, and different choices.
        keys = [(type(value) is bool, value if isinstance(value, str | int | float) else None) for value in self.values]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return [value for _, value in places], np.array([places[key] for key in keys], dtype=np.intp)

    @cached_property
    def shapes(self) -> tuple[Array, Mask]:
        """Schedules as points, and which of the values are one."""
        return _shapes(self.values)


@dataclass(frozen=True)
class TaskHistory:
    """One finished experiment. `columns` hold the n trials' values by parameter, None where inactive.

    `values` are the n outcomes in the metric's units, None where the trial diverged.
    """

    reference: str
    task: Task
    space: Space
    columns: Mapping[str, Sequence[JsonValue]]
    values: Sequence[float | None]
    fixed: JsonObject = field(default_factory=dict)

    @cached_property
    def decoded(self) -> Mapping[str, Column]:
        return {name: Column(values) for name, values in self.columns.items()}

    @cached_property
    def losses(self) -> Array:
        """(n,), less is better, infinite where the trial diverged."""
        return _losses(self)

    @cached_property
    def scores(self) -> Array:
        """Normal scores of the losses: (n,)."""
        return normal_scores(self.losses)

    @cached_property
    def views(self) -> dict[tuple[str, str], View | None]:
        """What it says in the spaces that were asked for last: a cache, on which nothing depends."""
        return {}

    @cached_property
    def extent(self) -> tuple[float, float] | None:
        """The least and the greatest outcome; None where every trial diverged."""
        known = [value for value in self.values if value is not None]
        return (min(known), max(known)) if known else None

    @property
    def best(self) -> float | None:
        """The best outcome; None where every trial diverged."""
        return max(self.extent, key=lambda value: self.task.goal.sign * value) if self.extent else None


@dataclass(frozen=True)
class Source:
    """A history seen from the target space. The m of its n trials that have a place there, in their order."""

    history: TaskHistory
    weight: float
    """Similarity of the task times the share of the target's parameters that the history speaks of."""
    similarity: float
    rows: Array  # (m, D)
    features: Array  # (m, P)
    scores: Array  # (m,), less is better
    losses: Array  # (m,), infinite for diverged trials
    worked_out: dict[object, object] = field(default_factory=dict)
    """What others made of these numbers, kept with them."""


@dataclass(frozen=True)
class View:
    """A history in a target space, however like the task it is. Symbols as in `Source`."""

    coverage: float
    rows: Array
    features: Array
    scores: Array
    losses: Array
    worked_out: dict[object, object] = field(default_factory=dict)


def source(history: TaskHistory, weight: float, encoding: Encoding, defaults: Configuration | None) -> Source | None:
    """The history in the target space; None where it says nothing about it."""
    if weight <= 0.0 or len(history.values) < 2:
        return None
    key = _view_key(encoding, defaults)
    try:
        view = history.views[key]
    except KeyError:
        (view,) = _views([history], encoding, defaults)
        _keep(history, key, view)
    if view is None:
        return None
    return Source(
        history,
        weight * view.coverage,
        weight,
        view.rows,
        view.features,
        view.scores,
        view.losses,
        view.worked_out,
    )


def look(histories: Iterable[TaskHistory], encoding: Encoding, defaults: Configuration | None) -> None:
    """Works out what `source` needs of the histories that nobody has looked at from the target space. Those of one
    space are mapped as one long history: twenty of them take little longer than one.
    """
    key = _view_key(encoding, defaults)
    alike: dict[object, list[TaskHistory]] = {}
    for history in histories:
        if key not in history.views and len(history.values) > 1:
            kind = (id(history.space), tuple(history.columns), json.dumps(history.fixed, sort_keys=True))
            alike.setdefault(kind, []).append(history)
    for group in alike.values():
        for history, view in zip(group, _views(group, encoding, defaults), strict=True):
            _keep(history, key, view)


def _keep(history: TaskHistory, key: tuple[str, str], view: View | None) -> None:
    history.views[key] = view
    for old in list(history.views)[:-_KEPT_VIEWS]:
        history.views.pop(old, None)


def _view_key(encoding: Encoding, defaults: Configuration | None) -> tuple[str, str]:
    return encoding.key, json.dumps(defaults, sort_keys=True)


def _views(
    histories: Sequence[TaskHistory], encoding: Encoding, defaults: Configuration | None
) -> Iterator[View | None]:
    """Of histories with the same space, columns and fixed values."""
    points, usable, coverage = _mapped(_joined(histories), encoding.space)
    filled = encoding.encode(defaults) if defaults is not None else np.full(encoding.width, np.nan)
    rows = encoding.rows(np.where(np.isnan(points), filled[None, :], points))
    features = encoding.features(rows)
    end = 0
    for history in histories:
        begin, end = end, end + len(history.values)
        kept = begin + np.flatnonzero(usable[begin:end])
        scores = history.scores[kept - begin]
        if coverage < _LEAST_COVERAGE or len(kept) < 2 or np.ptp(scores) <= 0.0:
            yield None
        else:
            yield View(coverage, rows[kept], features[kept], scores, history.losses[kept - begin])


def _joined(histories: Sequence[TaskHistory]) -> TaskHistory:
    """All their trials, one history after the other."""
    first = histories[0]
    if len(histories) == 1:
        return first
    columns = {name: [value for one in histories for value in one.columns[name]] for name in first.columns}
    return replace(first, columns=columns, values=[value for one in histories for value in one.values])


def normal_scores(losses: Array) -> Array:
    """Φ⁻¹((rank - ½) / n), ties sharing their mean rank: (n,) -> (n,)."""
    return np.asarray(ndtri((ranks(losses) - 0.5) / len(losses)))


def _losses(history: TaskHistory) -> Array:
    sign = -history.task.goal.sign
    values = [math.inf if value is None or not math.isfinite(value) else sign * value for value in history.values]
    losses = np.array(values, dtype=np.float64)
    # Beyond it squares overflow, and nobody tells such losses apart.
    return np.where(np.isfinite(losses), np.clip(losses, -_LARGEST_LOSS, _LARGEST_LOSS), losses)


def _mapped(history: TaskHistory, space: Space) -> tuple[Array, Mask, float]:
    """Points (n, D), NaN where nothing is known; which trials have a place; the share of parameters spoken of."""
    count = len(history.values)
    points = np.full((count, space.dimensions), np.nan)
    usable = np.ones(count, dtype=bool)
    spoken = 0
    for parameter in space.parameters:
        column = _column(history, space, parameter)
        if column is None:
            continue
        units, known = _units(parameter, column)
        points[:, space.slices[parameter.name]] = units
        usable &= known
        spoken += 1
    return points, usable, spoken / len(space)


def _column(history: TaskHistory, space: Space, parameter: AnyParameter) -> Column | None:
    """The history's values for a parameter of the target: by role, else by name, else what it held fixed."""
    name = counterpart(history.space, space, parameter)
    if name is not None:
        return history.decoded.get(name)
    role = space.role_of(parameter.name)
    for fixed, value in history.fixed.items():
        if fixed == parameter.name or (role is not None and guess_role(fixed) == role):
            return Column([value] * len(history.values))
    return None


def counterpart(theirs: Space, space: Space, parameter: AnyParameter) -> str | None:
    """Which parameter of `theirs` is the same as this one of `space`: by role, else by name."""
    role = space.role_of(parameter.name)
    name = theirs.with_role(role) if role is not None else None
    if name is None and parameter.name in theirs.by_name:
        other = theirs.role_of(parameter.name)
        name = parameter.name if role is None or other is None or role == other else None
    return name


def _units(parameter: AnyParameter, column: Column) -> tuple[Array, Mask]:
    """Positions in the unit interval (n, dimensions), NaN for None, and which of them have a place."""
    match parameter:
        case Float() | Int():
            units, known = _numbers(parameter, column)
        case Categorical():
            units, known = _choices(parameter, column)
        case Bool():
            units, known = column.bools
        case Schedule():
            units, known = column.shapes
    if known.all() and not column.inactive.any():
        return units, known
    units = np.where((column.inactive | ~known)[:, None], np.nan, units)
    return units, known | column.inactive


def _numbers(parameter: Float | Int, column: Column) -> tuple[Array, Mask]:
    values = column.numbers
    low, high = float(parameter.low), float(parameter.high)
    margin = 0.25 * (high - low)
    lowest, highest = (low / _FACTOR, high * _FACTOR) if parameter.log else (low - margin, high + margin)
    known = (values >= lowest) & (values <= highest)  # NaN compares false
    inside = np.minimum(np.maximum(np.where(known, values, low), low), high)
    # The ends of a real range are those of the unit interval; whole numbers stand in the middle of theirs.
    ends = (0.0, 1.0) if isinstance(parameter, Float) else [parameter.to_unit(end)[0] for end in (low, high)]
    return _interpolated(inside, low, high, parameter.log, ends)[:, None], known


def _interpolated(values: Array, low: float, high: float, log: bool, ends: Sequence[float] = (0.0, 1.0)) -> Array:
    """Positions between `ends` of values in [low, high]: (n,) -> (n,)."""
    if log:
        share = (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    else:
        share = (values - low) / (high - low)
    return np.asarray(ends[0] + (ends[1] - ends[0]) * share)


def _choices(parameter: Categorical, column: Column) -> tuple[Array, Mask]:
    values, which = column.different
    found = np.array([_place(parameter, value) for value in values])[which]
    return ((found + 0.5) / len(parameter.choices))[:, None], found >= 0


def _place(parameter: Categorical, value: JsonValue) -> int:
    """Which choice a value is or, as a positive number among numbers, is near to; -1 for none."""
    for position, choice in enumerate(parameter.choices):
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return position
        if isinstance(choice, str) and isinstance(value, str) and choice.lower() == value.lower():
            return position
    number = _number(value)
    ratios = [
        # Not the logarithm of their ratio, which may be too small or too large for a number.
        abs(math.log(number) - math.log(near)) if (near := _number(c)) > 0 < number else math.inf
        for c in parameter.choices
    ]
    nearest = min(range(len(ratios)), key=ratios.__getitem__)
    return nearest if ratios[nearest] <= math.log(_NEAR_CHOICE) else -1


def _shapes(column: Sequence[JsonValue]) -> tuple[Array, Mask]:
    usual = ScheduleShape().to_json()
    known = np.array([isinstance(value, dict) for value in column], dtype=bool)
    shapes = [{**usual, **value} if isinstance(value, dict) else usual for value in column]
    units = np.empty((len(column), len(SHAPE_FIELDS)))
    for position, name in enumerate(SHAPE_FIELDS):
        low, high = SEARCH_BOUNDS[name]
        values = np.array([_number(shape.get(name)) for shape in shapes])
        known &= np.isfinite(values)
        inside = np.clip(np.where(np.isfinite(values), values, low), low, high)
        units[:, position] = _interpolated(inside, low, high, name == "decay_exponent")
    return units, known


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
