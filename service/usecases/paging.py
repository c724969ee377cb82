"""Cursors: opaque to clients, a place in an ordered list to us."""

from __future__ import annotations

import base64
from datetime import datetime

import orjson

from foretune.errors import FieldError, InvalidRequest


def write_cursor(place: int | tuple[datetime, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def read_number(cursor: str | None) -> int:
    """The number that `write_cursor` wrote; 0 without a cursor. Raises InvalidRequest for anything else."""
    if cursor is None:
        return 0
    value = _decode(cursor)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _refusal()
    return value


def read_moment(cursor: str | None, prefix: str) -> tuple[datetime, str] | None:
    """The time and id that `write_cursor` wrote; None without a cursor.

    Raises InvalidRequest for anything else, as the cursor of a list of other things, whose ids do not begin with
    `prefix`.
    """
    if cursor is None:
        return None
    match _decode(cursor):
        case [str() as moment, str() as identity] if identity.startswith(prefix) and "\x00" not in identity:
            try:
                parsed = datetime.fromisoformat(moment)
            except ValueError:
                raise _refusal() from None
            if parsed.tzinfo is not None:
                return parsed, identity
    raise _refusal()


def _decode(cursor: str) -> object:
    try:
        return orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except ValueError:
        raise _refusal() from None


def _refusal() -> InvalidRequest:
    message = "is not a cursor that a page of this list gave: send `next` of the page before, unchanged"
    return InvalidRequest(f"cursor {message}", errors=[FieldError(("query", "cursor"), message)])
