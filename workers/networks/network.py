"""What a base network is to the rest of Foretune: a name, what it reads, how it is built and what may be tuned.

Names of parameters are canonical (`learning_rate`, `width`); a client's own space may call them otherwise (`lr`,
`hidden_size`, or any name with a `role`), and `Network.resolve` translates.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from torch import nn

from foretune.errors import FieldError, InvalidConfiguration, InvalidSpace
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Categorical, Float, Int, Schedule
from foretune.roles import guess_role
from foretune.spaces import AnyParameter, Configuration, Space
from foretune.wire.datasets import Task
from workers.datasets.dataset import Modality
from workers.networks.training import TRAINING_DEFAULTS, TRAINING_LIMITS


@dataclass(frozen=True)
class DataShape:
    """What a network must know of the data.

    `input_shape` is that of one row: (F,) for a table, (C, H, W) for images, (T, F) for sequences, () for a text,
    of which a network sees (B, T) token ids. `output_size` is the number of classes, 1 for regression, the size of
    the vocabulary for language modelling.
    """

    task: Task
    input_shape: tuple[int, ...]
    output_size: int


Build: TypeAlias = Callable[[Mapping[str, JsonValue], DataShape], nn.Module]


@dataclass(frozen=True, eq=False)
class Network:
    """One base network.

    `build` gets every parameter by its canonical name (see `resolve`) and returns a float32 module on the CPU,
    initialised from torch's global generator, which the engine seeds. The module maps a batch of rows to
    (B, output_size), or to (B, T, output_size) for language modelling; what it draws at random in training it draws
    through `workers.networks.dropout.Dropout` or from torch's global generator.

    `space` is what is searched unless the client says otherwise, `defaults` the expert's first choice for every
    parameter of the network, and `limits` what each may be at all; the parameters of training
    (`TRAINING_DEFAULTS`, `TRAINING_LIMITS`) are added to both. A parameter without a limit must stay in the range
    that `space` gives it. `views` says which modalities it reads, the preferred one first.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    views: tuple[Modality, ...]
    space: Space
    build: Build
    defaults: Mapping[str, JsonValue]
    limits: Mapping[str, AnyParameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {**TRAINING_LIMITS, **self.space.by_name, **self.limits}
        # Training's own limits hold unless the network states others: a search range is no limit.
        limits = {name: self.limits.get(name, TRAINING_LIMITS.get(name, limit)) for name, limit in known.items()}
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "defaults", {**TRAINING_DEFAULTS, **self.defaults})
        missing = sorted(set(limits) - set(self.defaults))
        if missing:
            raise InvalidSpace(f"network {self.name!r} gives no default for {', '.join(missing)}")
        self.check_fixed(dict(self.defaults))

    def view_for(self, available: Sequence[Modality]) -> Modality | None:
        """The view of a data set that this network reads best, None when it reads none of those available."""
        return next((view for view in self.views if view in available), None)

    def space_for(self, task: Task) -> Space:
        """The default search space without what means nothing for `task`."""
        if task is Task.CLASSIFICATION or "label_smoothing" not in self.space.by_name:
            return self.space
        return self.space.without(["label_smoothing"], {})

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

    def canonical(self, name: str, role: str | None = None) -> str | None:
        """The parameter of this network that a client means by `name` or `role`; None when there is none."""
        return next((known for known in (name, role, guess_role(name)) if known in self.limits), None)

    def resolve(self, configuration: Mapping[str, JsonValue], space: Space | None = None) -> JsonObject:
        """Every parameter by its canonical name: the configuration where it says something, else the default.

        `space` is the one the configuration comes from; it tells the roles. Raises InvalidConfiguration for an
        unknown name, a value beyond its limits, or two names for one parameter.
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
            raise InvalidConfiguration(f"network {self.name!r}: {message}", errors=faults)
        return values

    def check_fixed(self, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidConfiguration unless every fixed value is one that this network can be trained with."""
        self.resolve(fixed)

    def check_space(self, space: Space, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidSpace or InvalidConfiguration unless this network can be trained all over `space`."""
        self.check_fixed(fixed)
        faults: list[FieldError] = []
        seen = {self.canonical(name): name for name in fixed}
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
            raise InvalidSpace(f"network {self.name!r}: {message}", errors=faults)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.limits, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"is no parameter of it: it has {', '.join(self._names)}{hint}"

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self.limits))


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
