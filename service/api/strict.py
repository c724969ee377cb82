"""Routes that refuse what they do not know: stray query parameters, bodies of another kind, characters no row keeps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TypeAlias

import orjson
from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response

from foretune.errors import FieldError, InvalidRequest
from service.api.limits import Body
from service.api.problems import UnsupportedMediaType

Handler: TypeAlias = Callable[[Request], Coroutine[object, object, Response]]


class JsonRequest(Request):
    """A request whose JSON is read strictly: no NaN or Infinity, no lone surrogates, at most 1,024 levels."""

    async def json(self) -> object:
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    """A route that reads JSON or nothing."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        known = frozenset(_query_names(self.dependant))
        reads_json = self.body_field is not None
        changes = bool(self.methods and self.methods & {"POST", "PATCH", "PUT"})

        async def handle_strictly(request: Request) -> Response:
            _check_parameters(request, known)
            if changes:
                request = JsonRequest(request.scope, request.receive)
                await _read_json(request, reads_json)
            return await handle(request)

        return handle_strictly


class StreamRoute(APIRoute):
    """A route that reads its body by itself, while it arrives."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        known = frozenset(_query_names(self.dependant))

        async def handle_strictly(request: Request) -> Response:
            _check_parameters(request, known)
            return await handle(request)

        return handle_strictly


def _query_names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _check_parameters(request: Request, known: frozenset[str]) -> None:
    """Raises InvalidRequest, UnsupportedMediaType."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType(f"bodies are read as they are, without a Content-Encoding; this one says {coding!r}")
    for name, value in request.path_params.items():
        if "\x00" in value:
            _refuse(("path", name), "must not contain the character U+0000")
    if not request.scope["query_string"]:
        return
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name in seen:
            _refuse(("query", name), "is given twice: give it once")
        seen.add(name)
        if name not in known:
            offer = f"there is {', '.join(sorted(known))}" if known else "there is none here"
            _refuse(("query", name), f"is not a parameter of this endpoint; {offer}")
        if "\x00" in value:
            _refuse(("query", name), "must not contain the character U+0000")


async def _read_json(request: Request, wanted: bool) -> None:
    """Reads the body within the limit, and checks what can be checked before it is parsed."""
    body = await Body(request).whole(request.app.state.parts.settings.foretune_max_body_bytes)
    # Where Starlette keeps a body that was read: whoever asks for it next gets it from there.
    request._body = body
    if not body:
        return
    if not wanted:
        if body.strip() != b"{}":
            _refuse(("body",), "must be empty: this call takes no fields")
        return
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaType(
            f"this endpoint reads application/json, not {media_type or 'a body without a Content-Type'}"
        )


def _refuse(loc: tuple[str | int, ...], message: str) -> None:
    raise InvalidRequest(f"{loc[-1]} {message}", errors=[FieldError(loc, message)])
