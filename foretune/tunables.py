"""What of a network may be set: its hyperparameters by canonical name, whatever a client calls them.

`learning_rate` may come as `lr` or as any name with the role `learning_rate`; `Tunables.resolve` translates, and the
checks name what is unknown or out of bounds. The service checks submissions with it, the workers resolve with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foretune.errors import FieldError, InvalidConfiguration, InvalidSpace
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.roles import guess_role
from foretune.spaces import AnyParameter, Configuration, Space


@dataclass(frozen=True)
class Tunables:
    """The hyperparameters of the network called `network`: what each may be at all, and what it is by default."""

    network: str
    limits: Mapping[str, AnyParameter]
    defaults: Mapping[str, JsonValue]

    def canonical(self, name: str, role: str | None = None) -> str | None:
        """The hyperparameter that a client means by `name` or `role`; None when there is none."""
        return next((known for known in (name, role, guess_role(name)) if known in self.limits), None)

    def default_configuration(self, space: Space) -> Configuration:
        """The expert's first choice as a point of `space`; a default beyond a range becomes its nearest end."""
        values: Configuration = {}
        for parameter in space.parameters:
            if not space.is_active(parameter, values):
                continue
            name = self.canonical(parameter.name, parameter.role)
            value = self.defaults.get(name) if name is not None else None
            if value is None or parameter.problem_with(value) is not None:
                value = _nearest(parameter, value)
            values[parameter.name] = value
        return values

    def resolve(self, configuration: Mapping[str, JsonValue], space: Space | None = None) -> JsonObject:
        """Every hyperparameter by its canonical name: the configuration where it says something, else the default.

        `space` is the one the configuration comes from; it tells the roles. Raises InvalidConfiguration for an
        unknown name, a value beyond its limits, or two names for one hyperparameter.
        """
        faults: list[FieldError] = []
        given: dict[str, str] = {}
        values = dict(self.defaults)
        for name, value in configuration.items():
            role = space.by_name[name].role if space is not None and name in space.by_name else None
            canonical = self.canonical(name, role)
            problem = self._unknown(name) if canonical is None else self.limits[canonical].problem_with(value)
            if canonical in given:
                problem = f"means the same as {given[canonical]!r}: give one of them"
            if problem is not None or canonical is None:
                faults.append(FieldError((name,), problem or self._unknown(name)))
                continue
            given[canonical] = name
            values[canonical] = value
        if faults:
            message = "; ".join(f"{fault.loc[0]} {fault.msg}" for fault in faults)
            raise InvalidConfiguration(f"network {self.network!r}: {message}", errors=faults)
        return values

    def check_fixed(self, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidConfiguration unless the network can be trained with every fixed value."""
        self.resolve(fixed)

    def check_space(self, space: Space, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidSpace unless the network can be trained all over `space`."""
        faults: list[FieldError] = []
        seen = {self.canonical(name): name for name in fixed if name not in space.by_name}
        for position, parameter in enumerate(space.parameters):
            canonical = self.canonical(parameter.name, parameter.role)
            if canonical is None:
                problem: str | None = self._unknown(parameter.name)
            elif canonical in seen:
                problem = f"means the same as {seen[canonical]!r}: give one of them"
            else:
                problem = _beyond(parameter, self.limits[canonical])
            seen.setdefault(canonical, parameter.name)
            if problem is not None:
                faults.append(FieldError((position,), f"{parameter.name} {problem}"))
        if faults:
            message = "; ".join(fault.msg for fault in faults)
            raise InvalidSpace(f"network {self.network!r}: {message}", errors=faults)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.limits, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"is no hyperparameter of it: it has {', '.join(sorted(self.limits))}{hint}"


def _nearest(parameter: AnyParameter, value: JsonValue) -> JsonValue:
    """The value of `parameter` nearest to one that lies outside it; its middle when there is no nearness."""
    numeric = isinstance(parameter, Float | Int) and isinstance(value, int | float) and not isinstance(value, bool)
    return parameter.from_unit(parameter.to_unit(value) if numeric else [0.5] * parameter.dimensions)


def _beyond(parameter: AnyParameter, limit: AnyParameter) -> str | None:
    """What is wrong with searching `parameter` where only `limit` can be trained; None when nothing is."""
    if isinstance(parameter, Schedule) or isinstance(limit, Schedule):
        return None if type(parameter) is type(limit) else f"must be of type {limit.type}, not {parameter.type}"
    if isinstance(parameter, Float) and isinstance(limit, Int):
        return "takes integers: give it the type int"
    match parameter:
        case Float() | Int():
            values: Sequence[JsonValue] = (parameter.low, parameter.high)
        case Categorical():
            values = parameter.choices
        case _:
            values = (False, True)
    return next((problem for value in values if (problem := limit.problem_with(value))), None)
