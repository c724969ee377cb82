"""What all wire models share: strictness, bounded JSON, pages and problems."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from foretune.json_types import JsonValue
from foretune.texts import nameable, storable

Item = TypeVar("Item")
Seconds: TypeAlias = float
Timestamp: TypeAlias = datetime


class Request(BaseModel):
    """A request body: unknown fields, NaN and Infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, use_attribute_docstrings=True)


class Answer(BaseModel):
    """An answer body."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Page(Answer, Generic[Item]):
    """One page of a list; `next` is the cursor of the following page, or null on the last one."""

    items: list[Item]
    """At most `limit`."""
    next: str | None = None
    """The `cursor` of the next page; null on the last one."""


class FieldFault(Answer):
    """One wrong field."""

    loc: list[str | int]
    """The path to the field."""
    msg: str
    """What is wrong, and what would be right."""


class Problem(Answer):
    """An error, RFC 9457."""

    type: str
    """A name of this kind of error."""
    title: str
    """The kind of error, in words."""
    status: int
    """The HTTP status."""
    detail: str
    """What happened here."""
    code: str
    """A stable name to tell errors apart by."""
    errors: list[FieldFault] | None = None
    """What is wrong where; with status 422."""


Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]
Title = Annotated[Name, AfterValidator(nameable)]
"""The name that a person gives to a thing: shown as it is, so without control characters."""
Reason = Annotated[Text, Field(max_length=2000)]


def check_json(value: JsonValue, depth: int = 0) -> JsonValue:
    """Refuses text that Postgres cannot keep, numbers that are not finite and more than 20 levels."""
    if depth > 20:
        raise ValueError("must not be nested deeper than 20 levels")
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError("numbers must be finite")
    elif isinstance(value, int) and abs(value) > 2**63:
        raise ValueError("integers must lie within ±2^63")
    elif isinstance(value, list):
        for item in value:
            check_json(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            storable(key)
            check_json(item, depth + 1)
    return value


SafeJson = Annotated[JsonValue, AfterValidator(check_json)]
