"""The service itself: health and keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foretune.wire.base import Answer, Request, Timestamp, Title


class Health(Answer):
    status: str
    version: str


class Readiness(Answer):
    """`ready` only when every part answers; a part that does not says why."""

    ready: bool
    parts: dict[str, str]
    """`database`, `broker`, `workers`, `networks`, `datasets`: "ok" or what is wrong."""


class KeyRequest(Request):
    model_config = Request.model_config | {
        "json_schema_extra": {"examples": [{"name": "laptop", "expires_in_days": 90}]}
    }

    name: Title
    expires_in_days: Annotated[float, Field(gt=0, le=36500)] | None = None


class Key(Answer):
    id: str
    name: str
    project: str
    prefix: str
    """The first characters of the key, to recognise it by."""
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    last_used_at: Timestamp | None = None


class NewKey(Key):
    key: str
    """The key itself: shown once, stored hashed."""
