"""From typed Python arguments to request bodies, with the fields named that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from foretune.errors import FieldError, InvalidExperiment, InvalidRequest
from foretune.json_types import JsonValue
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter

Model = TypeVar("Model", bound=BaseModel)

_KINDS = frozenset({"float", "int", "categorical", "bool", "schedule"})
_PARAMETER: TypeAdapter[AnyParameter] = TypeAdapter(AnyParameter)


def checked(model: type[Model], value: object) -> Model:
    """`value` as `model`. Raises InvalidRequest with one FieldError for each field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = field_errors(error)
        text = "; ".join(f"{where(fault.loc)}: {fault.msg}" if fault.loc else fault.msg for fault in faults)
        kind = InvalidExperiment if model.__name__.startswith("Experiment") else InvalidRequest
        raise kind(text, errors=faults) from None


def field_errors(error: ValidationError) -> list[FieldError]:
    """Pydantic's findings, with paths as the user wrote them: the kind of a parameter is no part of the path."""
    found: dict[FieldError, None] = {}
    for fault in error.errors(include_url=False, include_input=False):
        loc = tuple(
            part
            for position, part in enumerate(fault["loc"])
            if not (part in _KINDS and position and isinstance(fault["loc"][position - 1], int))
        )
        found[FieldError(loc, fault["msg"].removeprefix("Value error, "))] = None
    return list(found)


def where(loc: Sequence[str | int]) -> str:
    """A path as one reads it: `space[0].low`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parameters_json(space: Sequence[AnyParameter | Mapping[str, JsonValue]]) -> list[JsonValue]:
    """A space as JSON; what is not given stays out."""
    return [
        _PARAMETER.dump_python(parameter, mode="json", exclude_none=True)
        if isinstance(parameter, Float | Int | Categorical | Bool | Schedule)
        else dict(parameter)
        for parameter in space
    ]
