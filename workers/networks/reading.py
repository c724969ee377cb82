"""From resolved parameters to a network's own config dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from foretune.errors import FieldError, InvalidConfiguration
from foretune.json_types import JsonValue

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def read_config(kind: type[T], values: Mapping[str, JsonValue]) -> T:
    """The frozen dataclass `kind` from those of `values` that are its fields, each checked against its annotation.

    Raises InvalidConfiguration when one is missing or of another type.
    """
    wanted = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    try:
        config: T = _adapter(kind).validate_python(wanted)
    except ValidationError as error:
        faults = [FieldError(tuple(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
        message = "; ".join(f"{'.'.join(map(str, fault.loc))}: {fault.msg}" for fault in faults)
        raise InvalidConfiguration(message, errors=faults) from None
    return config


@lru_cache(maxsize=256)
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
