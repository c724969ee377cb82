"""How endpoints document the errors that they answer."""

from __future__ import annotations

from typing import TypeAlias

Responses: TypeAlias = dict[int | str, dict[str, object]]

_SAID = {
    401: "No key, or not a valid one.",
    403: "This key may not do that.",
    404: "There is no such thing in this project.",
    409: "The request contradicts the present state; `code` says how.",
    413: "The body is larger than allowed.",
    415: "The body has a media type that is not read here.",
    422: "The request is malformed; `errors` says where, and what would be right.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "The service failed.",
    503: "A part of the service is away, or its disk is full; trying again helps.",
}


def problems(*statuses: int) -> Responses:
    """Answers of `application/problem+json`, by status."""
    return {status: {"description": _SAID[status], "content": problem_content()} for status in statuses}


def problem_content() -> dict[str, object]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
