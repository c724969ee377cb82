"""The service itself: health and keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretune.wire import examples
from foretune.wire.base import Answer, Request, Timestamp, Title


class Health(Answer):
    """The API is alive."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.HEALTH]}}

    status: str
    """`ok`"""
    version: str
    """The version of the service."""


class Readiness(Answer):
    """`ready` only when every part answers; a part that does not says why."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.READINESS]}}

    ready: bool
    """Whether every part answers."""
    parts: dict[str, str]
    """`database`, `broker`, `workers`, `networks`, `datasets`: "ok" or what is wrong."""


class KeyRequest(Request):
    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"name": "laptop", "expires_in_days": 90}]}
    }

    name: Title
    """What the key is for."""
    expires_in_days: Annotated[float, Field(gt=0, le=36500)] | None = None
    """It never expires when absent."""


class Key(Answer):
    """An API key, without the key itself."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.KEY]}}

    id: str
    """`key_…`"""
    name: str
    """What it is for."""
    project: str
    """Name of the project that it belongs to."""
    prefix: str
    """The first characters of the key, to recognise it by."""
    created_at: Timestamp
    """When it was made."""
    expires_at: Timestamp | None = None
    """From when on it is refused; null: never."""
    revoked_at: Timestamp | None = None
    """When it was revoked."""
    last_used_at: Timestamp | None = None
    """When it last opened the service, give or take a minute."""


class NewKey(Key):
    """A key that was just made."""

    model_config = Answer.model_config | {"json_schema_extra": {"examples": [examples.NEW_KEY]}}

    key: str
    """The key itself: shown once, stored hashed."""
