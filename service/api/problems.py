"""From errors to answers: the only place that knows which error has which status. RFC 9457, for every error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from foretune.errors import (
    Conflict,
    FieldError,
    Forbidden,
    ForetuneError,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[ForetuneError], int] = {
    InvalidRequest: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    TooManyRequests: 429,
    Unavailable: 503,
}
_ROUTER_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
_PARAMETER_KINDS = frozenset({"float", "int", "categorical", "bool", "schedule"})
_FAULTS_SHOWN = 50
_LONGEST_PART = 200


class UnsupportedMediaType(ForetuneError):
    """The body has a media type that this endpoint does not read."""

    code = "unsupported_media_type"


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that says what is wrong, where, and what would be right."""
    body: dict[str, object] = {
        "type": f"urn:foretune:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if status == 422:
        body["errors"] = [{"loc": list(_shown(one.loc)), "msg": one.msg} for one in errors[:_FAULTS_SHOWN]]
    return Response(orjson.dumps(body), status, headers, media_type=MEDIA_TYPE)


def problem_of(error: ForetuneError) -> Response:
    """The answer to an error of ours."""
    status = _status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        # RFC 6750: a call without a key gets the bare challenge.
        headers["WWW-Authenticate"] = "Bearer" if error.code == Unauthenticated.code else 'Bearer error="invalid_token"'
    if isinstance(error, TooManyRequests | Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    faults = error.errors if isinstance(error, InvalidRequest) else ()
    return problem(status, error.code, error.message, errors=faults, headers=headers)


def server_fault(request_id: str) -> Response:
    """The answer to a fault of ours: nothing about its inside, and the word to look it up by."""
    detail = f"the service failed; its log says more under request {request_id}"
    return problem(500, "internal_error", detail)


def register(app: FastAPI) -> None:
    """Makes every error of the application and its router a problem document."""

    async def on_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ForetuneError)
        return problem_of(error)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_of(_invalid(error))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _from_router(request, error)

    app.add_exception_handler(ForetuneError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def located(loc: Iterable[str | int]) -> tuple[str | int, ...]:
    """A path as the client wrote it: Pydantic names the kind of a parameter in it, which is no part of the path."""
    parts = tuple(loc)
    return tuple(
        part
        for position, part in enumerate(parts)
        if not (part in _PARAMETER_KINDS and position and isinstance(parts[position - 1], int))
    )


def _status_of(error: ForetuneError) -> int:
    if isinstance(error, UnsupportedMediaType):
        return 415
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    raise error


def _invalid(error: RequestValidationError) -> InvalidRequest:
    found: dict[FieldError, None] = {}
    for fault in error.errors():
        if fault["type"] == "json_invalid":
            message = f"is no JSON: {fault['ctx']['error']}"
            return InvalidRequest(f"the body {message}", errors=[FieldError(("body",), message)])
        found[FieldError(located(fault["loc"]), fault["msg"].removeprefix("Value error, "))] = None
    faults = list(found)
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidRequest(f"{'.'.join(map(str, _shown(first.loc)))}: {first.msg}{more}", errors=faults)


def _from_router(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    path = request.url.path
    if error.status_code == 405:
        allowed = _methods(request)
        headers["Allow"] = ", ".join(allowed)
        return problem(405, "method_not_allowed", f"{path} answers {headers['Allow']}", headers=headers)
    if error.status_code == 404:
        return problem(404, "not_found", f"there is nothing at {path}", headers=headers)
    if error.status_code == 400:
        return problem_of(InvalidRequest(str(error.detail)))
    code = _ROUTER_CODES.get(error.status_code, f"http_{error.status_code}")
    return problem(error.status_code, code, str(error.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """What the path answers. Starlette tells the methods of one of its routes only."""
    found: set[str] = set()
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            found.add(method)
    return sorted(found)


def _shown(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A path whose keys, which the client chose, are of bearable length."""
    return tuple(part[:_LONGEST_PART] if isinstance(part, str) else part for part in loc)
