"""The calls of an ask/tell loop, straight from the server to their endpoints.

FastAPI's layers (five middlewares, routing, dependencies) take nearly twice the processor time of the endpoint
itself (docs/LOG.md), and a loop makes thousands of such calls. Their routes stand in FastAPI like all others, for the
OpenAPI page and for whatever is out of the ordinary: a call whose form is not the plainest, or whose body is not
valid, goes on to FastAPI, which answers it as if nothing had been before it. So there is one place for every refusal,
and it is not here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretune.errors import ForetuneError
from service.api.auth import KeyCheck, presented_in
from service.api.call import LONGEST_IDEMPOTENCY_KEY, Call
from service.api.observing import Observed
from service.api.problems import problem_of
from service.usecases import idempotency
from service.usecases.idempotency import Once

_LARGEST_BODY_BYTES = 2**16
_OUT_OF_THE_ORDINARY = (b"expect", b"content-encoding")
_CALL = "foretune.direct"
Endpoint = Callable[[Call, str, Any], Awaitable[Response]]
"""Who calls, the id in the path, and the request."""


@dataclass(frozen=True)
class _Target:
    """A route `POST /v1/{things}/{id}/{verb}` that reads JSON."""

    route: APIRoute
    endpoint: Endpoint
    model: type[BaseModel]
    heeds_key: bool
    """Whether the endpoint heeds Idempotency-Key."""


@dataclass(frozen=True)
class _Ready:
    """A call that may go to its endpoint once its key is known."""

    target: _Target
    id: str
    request: BaseModel
    once: Once | None


class Direct:
    """Answers the plain calls of `routes`; everything else is `app`'s."""

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._targets = dict(map(_target, routes))
        self._answer = Observed(KeyCheck(_to_endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target, thing = self._find(scope)
        if target is None or (size := _plain_size(scope)) is None:
            await self._app(scope, receive, send)
            return
        body, messages = await _read(receive, size)
        request = _parsed(target.model, body)
        if request is None:
            await self._app(scope, _again(messages, receive), send)
            return
        scope["route"] = target.route
        scope[_CALL] = _Ready(target, thing, request, _once(scope, body) if target.heeds_key else None)
        await self._answer(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_Target | None, str]:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None, ""
        parts = scope["path"].split("/")
        if len(parts) != 5 or not parts[3] or "\x00" in parts[3]:
            return None, ""
        return self._targets.get((parts[1], parts[2], parts[4])), parts[3]


async def _to_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind the key check."""
    ready: _Ready = scope[_CALL]
    call = Call(scope["app"].state.parts, presented_in(scope), ready.once)
    try:
        answer = await ready.target.endpoint(call, ready.id, ready.request)
    except ForetuneError as error:
        answer = problem_of(error)
    await answer(scope, receive, send)


def _target(route: APIRoute) -> tuple[tuple[str, str, str], _Target]:
    _, version, things, _, verb = route.path.split("/")
    assert route.body_field is not None
    model = route.body_field.field_info.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    names = {field.alias for given in route.dependant.dependencies for field in given.header_params}
    return (version, things, verb), _Target(route, route.endpoint, model, "idempotency-key" in names)


def _plain_size(scope: Scope) -> int | None:
    """How long the body is; None unless it is small JSON, announced with its length, and nothing else is asked for."""
    if scope["query_string"]:
        return None
    size, is_json = None, False
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() else None
        elif name == b"content-type":
            is_json = value == b"application/json"
        elif name in _OUT_OF_THE_ORDINARY or (
            name == b"idempotency-key" and not 0 < len(value) <= LONGEST_IDEMPOTENCY_KEY
        ):
            return None
    return size if is_json and size is not None and 0 < size <= _LARGEST_BODY_BYTES else None


async def _read(receive: Receive, size: int) -> tuple[bytes, list[Message]]:
    """The body, and the messages that it came in. Shorter than `size` when the client went away."""
    messages, body = [], b""
    while len(body) < size:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body, messages


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Receives what was read once more, then what comes."""
    left = iter(messages)

    async def receive_again() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return receive_again


def _parsed(model: type[BaseModel], body: bytes) -> BaseModel | None:
    """The request; None when it is not valid."""
    try:
        return model.model_validate(orjson.loads(body))
    except ValueError:  # A ValidationError is one.
        return None


def _once(scope: Scope, body: bytes) -> Once | None:
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            return Once(value.decode("latin-1"), idempotency.fingerprint(scope["method"], scope["path"], body))
    return None
