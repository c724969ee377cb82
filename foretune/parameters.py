"""The kinds of hyperparameter, each with its mapping from and to the unit interval.

Pydantic dataclasses: what a client sends is parsed and checked here once, and the same frozen values go everywhere.
Made by hand, a parameter that cannot be searched raises InvalidSpace; parsed, it is a part of pydantic's findings.
`u` is always a number in [0, 1]; a schedule takes one `u` for each of its shape numbers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from foretune.errors import FieldError, ForetuneError, InvalidSpace
from foretune.json_types import JsonValue
from foretune.schedules import SEARCH_BOUNDS, SHAPE_FIELDS, ScheduleShape
from foretune.texts import storable

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
_MAX_INTEGER = 2**53
"""Beyond it a JSON number is no longer exact."""

Scalar: TypeAlias = str | bool | int | float
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable)]
Role = Name | None
When = Annotated[dict[str, list[Scalar]], Field(max_length=8)] | None
Kind = TypeVar("Kind")


def _no_bool(value: object) -> object:
    """To Python true is 1; whoever writes it means something else."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


Real = Annotated[float, BeforeValidator(_no_bool)]
Whole = Annotated[int, BeforeValidator(_no_bool)]


def _told_as_ours(kind: type[Kind]) -> type[Kind]:
    """One made by hand raises InvalidSpace where pydantic raises its own error; parsing does not come by here."""
    make: Callable[..., None] = kind.__init__

    @wraps(make)
    def init(self: Kind, *args: object, **fields: object) -> None:
        try:
            make(self, *args, **fields)
        except ValidationError as error:
            raise _as_ours(kind, error) from None

    setattr(kind, "__init__", init)  # noqa: B010 - mypy lets nobody assign to it
    return kind


def _as_ours(kind: type[object], error: ValidationError) -> InvalidSpace:
    fields = list(inspect.signature(kind).parameters)

    def named(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
        """What was given by position is told by its name."""
        return (fields[loc[0]], *loc[1:]) if loc and isinstance(loc[0], int) and loc[0] < len(fields) else loc

    faults = [
        FieldError(named(fault["loc"]), fault["msg"].removeprefix("Value error, "))
        for fault in error.errors(include_url=False, include_input=False)
    ]
    told = (f"{'.'.join(map(str, fault.loc))}: {fault.msg}" if fault.loc else fault.msg for fault in faults)
    return InvalidSpace(f"{kind.__name__}: {'; '.join(told)}", errors=faults)


@_told_as_ours
@dataclass(frozen=True, config=_CONFIG)
class Float:
    """A real number in [low, high]; `log` searches its logarithm, `step` its multiples above `low`."""

    name: Name
    """Unique in its space."""
    low: Real
    """The least value."""
    high: Real
    """The greatest value."""
    log: bool = False
    """Search by orders of magnitude."""
    step: Real | None = None
    """Only multiples of it above `low`; any value, when absent."""
    role: Role = None
    """Ties it to the same hyperparameter of other spaces; guessed from well-known names."""
    when: When = None
    """Under which values of earlier parameters it is active; always, when absent."""
    type: Literal["float"] = "float"

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, self.step)

    @property
    def dimensions(self) -> int:
        return 1

    def from_unit(self, u: Sequence[float]) -> float:
        value = _interpolate(self.low, self.high, self.log, u[0])
        if self.step is not None:
            value = self.low + round((value - self.low) / self.step) * self.step
            if value > self.high + 1e-9 * self.step:
                value -= self.step
        return min(max(value, self.low), self.high)

    def to_unit(self, value: JsonValue) -> list[float]:
        return self.to_units([value])

    def to_units(self, values: Sequence[JsonValue]) -> list[float]:
        """The positions of many values in the unit interval. Raises ValueError for one that is no number."""
        numbers = [value if type(value) is float else _number(value) for value in values]
        if not self.log:
            low, span = self.low, self.high - self.low
            return [min(max((value - low) / span, 0.0), 1.0) for value in numbers]
        log, low = math.log, math.log(self.low)
        span = math.log(self.high) - low
        return [min(max((log(max(value, 1e-300)) - low) / span, 0.0), 1.0) for value in numbers]

    def problem_with(self, value: JsonValue) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be a number from {self.low:g} to {self.high:g}, not {value!r}"
        if not self.low <= value <= self.high:
            return f"must lie from {self.low:g} to {self.high:g}, not {value!r}"
        return None


@_told_as_ours
@dataclass(frozen=True, config=_CONFIG)
class Int:
    """An integer in [low, high], both included."""

    name: Name
    """Unique in its space."""
    low: Whole
    """The least value."""
    high: Whole
    """The greatest value."""
    log: bool = False
    """Search by orders of magnitude."""
    step: Whole | None = None
    """Only multiples of it above `low`; any value, when absent."""
    role: Role = None
    """Ties it to the same hyperparameter of other spaces; guessed from well-known names."""
    when: When = None
    """Under which values of earlier parameters it is active; always, when absent."""
    type: Literal["int"] = "int"

    def __post_init__(self) -> None:
        if max(abs(self.low), abs(self.high)) > _MAX_INTEGER:
            raise ValueError("low and high must lie within ±2^53")
        _check_range(self.low, self.high, self.log, self.step)

    @property
    def dimensions(self) -> int:
        return 1

    def from_unit(self, u: Sequence[float]) -> int:
        # Half a step beyond both ends, so that the ends are as likely as what lies between.
        margin = 0.5 * (self.step or 1)
        low = max(self.low - margin, 0.5 * self.low) if self.log else self.low - margin
        value = _interpolate(low, self.high + margin, self.log, u[0])
        step = self.step or 1
        steps = math.floor((value - self.low) / step + 0.5)
        return self.low + min(max(steps, 0), (self.high - self.low) // step) * step

    def to_unit(self, value: JsonValue) -> list[float]:
        margin = 0.5 * (self.step or 1)
        low = max(self.low - margin, 0.5 * self.low) if self.log else self.low - margin
        return [_position(low, self.high + margin, self.log, _number(value))]

    def problem_with(self, value: JsonValue) -> str | None:
        if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
            return f"must be an integer from {self.low} to {self.high}, not {value!r}"
        if not self.low <= value <= self.high:
            return f"must lie from {self.low} to {self.high}, not {value!r}"
        if self.step is not None and (int(value) - self.low) % self.step:
            return f"must be {self.low} plus a multiple of {self.step}, not {value!r}"
        return None


@_told_as_ours
@dataclass(frozen=True, config=_CONFIG)
class Categorical:
    """One of `choices`; `ordered` says that neighbours are alike."""

    name: Name
    """Unique in its space."""
    choices: Annotated[list[Scalar], Field(min_length=1, max_length=1000)]
    """The values that it may have, each once."""
    ordered: bool = False
    """Whether neighbours are alike."""
    role: Role = None
    """Ties it to the same hyperparameter of other spaces; guessed from well-known names."""
    when: When = None
    """Under which values of earlier parameters it is active; always, when absent."""
    type: Literal["categorical"] = "categorical"

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices must hold at least one value")
        # True and 1 differ; 1 and 1.0 do not.
        seen = {(isinstance(choice, bool), choice) for choice in self.choices}
        if len(seen) < len(self.choices):
            raise ValueError(f"choices must differ from each other: {self.choices!r}")
        for choice in self.choices:
            if isinstance(choice, str):
                storable(choice)
            elif isinstance(choice, int) and abs(choice) > _MAX_INTEGER:
                raise ValueError(f"choices must lie within ±2^53, not {choice!r}")
            elif not math.isfinite(choice):
                raise ValueError(f"choices must be finite, not {choice!r}")

    @property
    def dimensions(self) -> int:
        return 1

    def from_unit(self, u: Sequence[float]) -> Scalar:
        return self.choices[min(int(u[0] * len(self.choices)), len(self.choices) - 1)]

    def to_unit(self, value: JsonValue) -> list[float]:
        return [(self.index(value) + 0.5) / len(self.choices)]

    def index(self, value: JsonValue) -> int:
        """The position of `value` among the choices; True and 1 are different choices. Raises ValueError."""
        for position, choice in enumerate(self.choices):
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return position
        raise ValueError(f"{value!r} is none of {self.choices!r}")

    def problem_with(self, value: JsonValue) -> str | None:
        try:
            self.index(value)
        except ValueError:
            return f"must be one of {self.choices!r}, not {value!r}"
        return None


@_told_as_ours
@dataclass(frozen=True, config=_CONFIG)
class Bool:
    """True or false."""

    name: Name
    """Unique in its space."""
    role: Role = None
    """Ties it to the same hyperparameter of other spaces; guessed from well-known names."""
    when: When = None
    """Under which values of earlier parameters it is active; always, when absent."""
    type: Literal["bool"] = "bool"

    @property
    def dimensions(self) -> int:
        return 1

    def from_unit(self, u: Sequence[float]) -> bool:
        return u[0] >= 0.5

    def to_unit(self, value: JsonValue) -> list[float]:
        return [0.75 if value else 0.25]

    def problem_with(self, value: JsonValue) -> str | None:
        return None if isinstance(value, bool) else f"must be true or false, not {value!r}"


@_told_as_ours
@dataclass(frozen=True, config=_CONFIG)
class Schedule:
    """The shape of the learning-rate schedule; its peak is the parameter with the role `learning_rate`."""

    name: Name = "lr_schedule"
    """Unique in its space."""
    role: Role = "lr_schedule"
    """What it is."""
    when: When = None
    """Under which values of earlier parameters it is active; always, when absent."""
    type: Literal["schedule"] = "schedule"

    @property
    def dimensions(self) -> int:
        return len(SHAPE_FIELDS)

    def from_unit(self, u: Sequence[float]) -> JsonValue:
        fields = (
            _interpolate(*SEARCH_BOUNDS[field], field == "decay_exponent", position)
            for field, position in zip(SHAPE_FIELDS, u, strict=True)
        )
        return ScheduleShape(*fields).to_json()

    def to_unit(self, value: JsonValue) -> list[float]:
        shape = ScheduleShape.from_json(value)
        return [
            _position(*SEARCH_BOUNDS[field], field == "decay_exponent", getattr(shape, field)) for field in SHAPE_FIELDS
        ]

    def problem_with(self, value: JsonValue) -> str | None:
        try:
            ScheduleShape.from_json(value)
        except ForetuneError as error:
            return error.message
        return None


Parameter: TypeAlias = Annotated[Float | Int | Categorical | Bool | Schedule, Field(discriminator="type")]


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low and high must be finite numbers, not {low!r} and {high!r}")
    if not math.isfinite(high - low):
        raise ValueError("high - low must be a finite number: the range is too wide")
    if low >= high:
        raise ValueError(f"low must be less than high: {low!r} is not less than {high!r}")
    if log and low <= 0:
        raise ValueError(f"with log, low must be greater than 0, not {low!r}")
    if log and math.log(low) == math.log(high):
        raise ValueError(f"the range from {low!r} to {high!r} is too narrow to search with log")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step must be greater than 0 and at most high - low, not {step!r}")
    if step is not None and log:
        raise ValueError("log and step exclude each other: drop one of them")


def _interpolate(low: float, high: float, log: bool, u: float) -> float:
    u = min(max(u, 0.0), 1.0)
    value = math.exp(math.log(low) + u * (math.log(high) - math.log(low))) if log else low + u * (high - low)
    return min(max(value, low), high)


def _position(low: float, high: float, log: bool, value: float) -> float:
    if log:
        u = (math.log(max(value, 1e-300)) - math.log(low)) / (math.log(high) - math.log(low))
    else:
        u = (value - low) / (high - low)
    return min(max(u, 0.0), 1.0)


def _number(value: JsonValue) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
