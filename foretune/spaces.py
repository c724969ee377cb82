"""Search spaces: an ordered list of parameters, some of them active only under conditions.

A *configuration* maps parameter names to values and holds the active parameters only. A *unit vector* has one number
in [0, 1] for each dimension of the space (a schedule has four), NaN where a parameter is inactive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from foretune.errors import FieldError, InvalidConfiguration, InvalidSpace
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Bool, Categorical, Float, Int, Parameter, Scalar, Schedule
from foretune.roles import guess_role

Configuration: TypeAlias = dict[str, JsonValue]
AnyParameter: TypeAlias = Float | Int | Categorical | Bool | Schedule
MAX_PARAMETERS = 100

_PARAMETERS: TypeAdapter[list[Parameter]] = TypeAdapter(list[Parameter])
_KINDS = ("float", "int", "categorical", "bool", "schedule")


@dataclass(frozen=True)
class Space:
    """Raises InvalidSpace, with one FieldError for each fault, when the parameters contradict each other."""

    parameters: tuple[AnyParameter, ...]

    def __post_init__(self) -> None:
        faults = list(_faults(self.parameters))
        if faults:
            raise InvalidSpace(faults[0].msg, errors=faults)

    @classmethod
    def of(cls, *parameters: AnyParameter) -> Space:
        return cls(tuple(parameters))

    @classmethod
    def from_json(cls, value: object) -> Space:
        """Reads a list of parameters as clients send it. Raises InvalidSpace."""
        try:
            return cls(tuple(_PARAMETERS.validate_python(value)))
        except ValidationError as error:
            faults = [
                FieldError(
                    tuple(part for part in fault["loc"] if part not in _KINDS),
                    fault["msg"].removeprefix("Value error, "),
                )
                for fault in error.errors(include_url=False, include_input=False)
            ]
            raise InvalidSpace(f"the space is malformed: {faults[0].msg}", errors=faults) from None

    def to_json(self) -> list[JsonValue]:
        dumped = _PARAMETERS.dump_python(list(self.parameters), mode="json", exclude_none=True)
        return list(dumped)

    def __len__(self) -> int:
        return len(self.parameters)

    @cached_property
    def by_name(self) -> Mapping[str, AnyParameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def dimensions(self) -> int:
        """Length of a unit vector."""
        return sum(parameter.dimensions for parameter in self.parameters)

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Where each parameter lies in a unit vector."""
        result, start = {}, 0
        for parameter in self.parameters:
            result[parameter.name] = slice(start, start + parameter.dimensions)
            start += parameter.dimensions
        return result

    @cached_property
    def cardinality(self) -> float:
        """How many different configurations there are at the most; infinite with any continuous parameter."""
        total = 1.0
        for parameter in self.parameters:
            total *= _cardinality(parameter)
        return total

    def role_of(self, name: str) -> str | None:
        return self._roles[name]

    def with_role(self, role: str) -> str | None:
        """The name of the first parameter that has this role."""
        return self._with_role.get(role)

    @cached_property
    def _roles(self) -> Mapping[str, str | None]:
        return {one.name: one.role or guess_role(one.name) for one in self.parameters}

    @cached_property
    def _with_role(self) -> Mapping[str, str]:
        return {role: name for name, role in reversed(tuple(self._roles.items())) if role is not None}

    @property
    def schedule(self) -> Schedule | None:
        return next((p for p in self.parameters if isinstance(p, Schedule)), None)

    def is_active(self, parameter: AnyParameter, values: Configuration) -> bool:
        """Whether all its conditions hold, given the values of the parameters before it."""
        return not parameter.when or all(
            parent in values and any(_same(values[parent], allowed) for allowed in allowed_values)
            for parent, allowed_values in parameter.when.items()
        )

    def from_unit(self, vector: Sequence[float]) -> Configuration:
        """The configuration at a point of the unit cube; inactive parameters are left out.

        `vector`: (dimensions,), in [0, 1]; NaN reads as the middle.
        """
        if len(vector) != self.dimensions:
            raise InvalidConfiguration(f"a point of this space has {self.dimensions} dimensions, not {len(vector)}")
        values: Configuration = {}
        for parameter in self.parameters:
            if self.is_active(parameter, values):
                part = [0.5 if math.isnan(u) else float(u) for u in vector[self.slices[parameter.name]]]
                values[parameter.name] = parameter.from_unit(part)
        return values

    def to_unit(self, values: Configuration) -> list[float]:
        """The point of the unit cube for a configuration, NaN for inactive parameters: (dimensions,)."""
        vector: list[float] = []
        for parameter in self.parameters:
            if parameter.name in values:
                vector.extend(parameter.to_unit(values[parameter.name]))
            else:
                vector.extend([math.nan] * parameter.dimensions)
        return vector

    def check(self, values: Configuration) -> None:
        """Raises InvalidConfiguration unless `values` has exactly the active parameters, each within its range."""
        faults: list[FieldError] = []
        known: Configuration = {}
        for parameter in self.parameters:
            active = self.is_active(parameter, known)
            if parameter.name not in values:
                if active:
                    faults.append(FieldError((parameter.name,), "is missing"))
                continue
            if not active:
                faults.append(FieldError((parameter.name,), "is not active here: leave it out"))
                continue
            problem = parameter.problem_with(values[parameter.name])
            if problem:
                faults.append(FieldError((parameter.name,), problem))
            else:
                known[parameter.name] = values[parameter.name]
        for name in values:
            if name not in self.by_name:
                faults.append(FieldError((name,), "is no parameter of this space"))
        if faults:
            message = "; ".join(f"{fault.loc[0]} {fault.msg}" for fault in faults)
            raise InvalidConfiguration(message, errors=faults)

    def without(self, names: Iterable[str], fixed: JsonObject) -> Space:
        """The space in which `names` are fixed: conditions on them are settled by `fixed`, and dropped."""
        gone = set(names)
        kept: list[AnyParameter] = []
        dropped: set[str] = set()
        for parameter in self.parameters:
            if parameter.name in gone:
                continue
            when = dict(parameter.when or {})
            settled = {parent: when.pop(parent) for parent in list(when) if parent in gone}
            holds = all(
                any(_same(fixed.get(parent), allowed) for allowed in values) for parent, values in settled.items()
            )
            if holds and not dropped.intersection(when):
                kept.append(_with_when(parameter, when))
            else:
                dropped.add(parameter.name)
        return Space(tuple(kept))

    def widening_faults(self, wider: Space) -> list[FieldError]:
        """Why `wider` is not this space with wider ranges or more choices; empty when it is."""
        faults: list[FieldError] = []
        if [(p.name, p.type) for p in self.parameters] != [(p.name, p.type) for p in wider.parameters]:
            names = ", ".join(p.name for p in self.parameters)
            return [FieldError((), f"a widened space keeps the same parameters in the same order: {names}")]
        for position, (old, new) in enumerate(zip(self.parameters, wider.parameters, strict=True)):
            fault = _narrowing(old, new)
            if fault:
                faults.append(FieldError((position,), f"{old.name}: {fault}"))
        return faults


def _same(left: object, right: object) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _with_when(parameter: AnyParameter, when: dict[str, list[Scalar]]) -> AnyParameter:
    fields = {name: getattr(parameter, name) for name in parameter.__dataclass_fields__}
    return type(parameter)(**{**fields, "when": when or None})


def _cardinality(parameter: AnyParameter) -> float:
    match parameter:
        case Categorical():
            return len(parameter.choices)
        case Bool():
            return 2
        case Int():
            return (parameter.high - parameter.low) // (parameter.step or 1) + 1
        case Float(step=float() as step):
            return math.floor((parameter.high - parameter.low) / step) + 1
    return math.inf


def _narrowing(old: AnyParameter, new: AnyParameter) -> str | None:
    if old.when != new.when or old.role != new.role:
        return "conditions and roles cannot change"
    if isinstance(old, Float | Int) and isinstance(new, Float | Int):
        if old.log != new.log or old.step != new.step:
            return "log and step cannot change"
        if new.low > old.low or new.high < old.high:
            return f"the range must hold [{old.low:g}, {old.high:g}], not be [{new.low:g}, {new.high:g}]"
        if old.step is not None and not _whole((old.low - new.low) / old.step):
            return f"low must stay on the grid: {old.low:g} minus a multiple of {old.step:g}"
    if isinstance(old, Categorical) and isinstance(new, Categorical):
        if new.choices[: len(old.choices)] != old.choices:
            return f"choices must begin with {old.choices!r}"
        if old.ordered != new.ordered:
            return "ordered cannot change"
    return None


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9


def _faults(parameters: Sequence[AnyParameter]) -> Iterable[FieldError]:
    if not parameters:
        yield FieldError((), "a space needs at least one parameter")
    if len(parameters) > MAX_PARAMETERS:
        yield FieldError((), f"a space has at most {MAX_PARAMETERS} parameters, not {len(parameters)}")
    positions: dict[str, int] = {}
    for position, parameter in enumerate(parameters):
        if parameter.name in positions:
            yield FieldError((position, "name"), f"{parameter.name!r} stands twice in the space")
        positions.setdefault(parameter.name, position)
    if sum(isinstance(parameter, Schedule) for parameter in parameters) > 1:
        yield FieldError((), "a space has at most one schedule")
    for position, parameter in enumerate(parameters):
        for parent, allowed in (parameter.when or {}).items():
            fault = _condition_fault(parameters, positions, position, parent, allowed)
            if fault:
                yield FieldError((position, "when", parent), fault)


def _condition_fault(
    parameters: Sequence[AnyParameter],
    positions: Mapping[str, int],
    position: int,
    parent: str,
    allowed: Sequence[Scalar],
) -> str | None:
    name = parameters[position].name
    if parent == name:
        return f"{name!r} cannot depend on itself"
    if parent not in positions:
        return f"{name!r} depends on {parent!r}, which is not in the space"
    if positions[parent] > position:
        if _depends_on(parameters, positions, parent, name):
            return f"{name!r} and {parent!r} depend on each other: a cycle"
        return f"{name!r} depends on {parent!r}, which must stand before it"
    if not allowed:
        return f"name at least one value of {parent!r}"
    for value in allowed:
        problem = parameters[positions[parent]].problem_with(value)
        if problem:
            return f"{name!r} can never be active: {parent!r} {problem}"
    return None


def _depends_on(
    parameters: Sequence[AnyParameter],
    positions: Mapping[str, int],
    child: str,
    ancestor: str,
) -> bool:
    """Whether following the conditions of `child` leads to `ancestor`."""
    seen: set[str] = set()
    open_names = [child]
    while open_names:
        current = open_names.pop()
        if current == ancestor:
            return True
        if current in positions and current not in seen:
            seen.add(current)
            open_names.extend(parameters[positions[current]].when or {})
    return False
