"""Around every call: a request id, its measured time, and an answer even when we fail."""

from __future__ import annotations

import logging
import re
import secrets
import time

import structlog
from prometheus_client import Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics import REQUESTS
from service.api.problems import server_fault

_log = structlog.get_logger(__name__)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Observed:
    """The outermost layer. It never logs headers or bodies: they hold keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._clocks: dict[tuple[str, str, int], Histogram] = {}
        # Asked once: structlog prepares an entry before it finds out that nobody wants it.
        self._logs_answers = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=request_id)
        started = False

        async def send_observed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                self._observe(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            _log.debug("client_gone", method=scope["method"], path=scope["path"])
        except Exception:
            _log.exception("request_failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # The connection breaks, so that the client does not take half an answer for a whole one.
            await server_fault(request_id)(scope, receive, send_observed)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        key = (scope["method"], route, status)
        clock = self._clocks.get(key)
        if clock is None:
            method = key[0] if key[0] in ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS") else "other"
            clock = self._clocks[key] = REQUESTS.labels(method, route, str(status))
        clock.observe(seconds)
        if self._logs_answers:
            _log.debug("answered", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4))


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-ID when it is a plain word, else one of ours."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GIVEN_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return secrets.token_hex(8)
