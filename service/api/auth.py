"""Who calls: every path under /v1 needs a key. One place before the router, so that no endpoint can forget it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.types import ASGIApp, Receive, Scope, Send

from foretune.errors import ForetuneError, Unauthenticated
from service.api.parts import Parts
from service.api.problems import problem_of
from service.usecases import keys
from service.usecases.keys import Caller

_TRUSTED_S = 2.0
_MOST_TRUSTED = 10_000
_LONGEST_KEY = 200
_CALLER = "foretune.caller"


@dataclass(frozen=True)
class Presented:
    """A caller, and the key that proved it."""

    caller: Caller
    key: str


class TrustedKeys:
    """Keys that were looked up a moment ago: so long may one live on after another process revoked it."""

    def __init__(self) -> None:
        # By hash, so that finding one takes the same time whatever a guess has in common with it.
        self._callers: dict[bytes, tuple[float, Caller]] = {}

    async def caller(self, parts: Parts, key: str) -> Caller:
        """Whom the key stands for. Raises Unauthenticated."""
        digest = hashlib.sha256(key.encode()).digest()
        now = time.monotonic()
        known = self._callers.get(digest)
        if known is not None and now < known[0]:
            return _unexpired(known[1])
        caller = await parts.in_thread(_look_up, parts, key)
        if len(self._callers) >= _MOST_TRUSTED:
            self._callers.clear()
        self._callers[digest] = (now + _TRUSTED_S, caller)
        return caller

    def forget(self) -> None:
        """Looks every key up again: one was revoked."""
        self._callers.clear()


class KeyCheck:
    """Lets calls of /v1 through that carry a valid key, as many as one may make."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"] == "/v1" or scope["path"].startswith("/v1/")):
            state = scope["app"].state
            try:
                key = _presented(scope)
                caller = await state.trusted_keys.caller(state.parts, key)
                state.rate.take(caller.key_id)
                scope[_CALLER] = Presented(caller, key)
            except ForetuneError as error:
                await problem_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def presented_in(scope: Scope) -> Presented:
    """Who made this call; it has passed the KeyCheck."""
    presented = scope[_CALLER]
    assert isinstance(presented, Presented)
    return presented


def _presented(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            scheme, _, key = text.partition(" ")
            key = key.strip()
            if scheme.lower() != "bearer" or not key:
                raise Unauthenticated("the Authorization header must be `Bearer KEY`")
            if len(key) > _LONGEST_KEY or not key.isascii():
                raise Unauthenticated("this key is not known here", code="key_unknown")
            return key
    raise Unauthenticated()


def _look_up(parts: Parts, key: str) -> Caller:
    with parts.database.reading() as tx:
        return keys.authenticate(tx, key)


def _unexpired(caller: Caller) -> Caller:
    if caller.expires_at is not None and caller.expires_at <= datetime.now(UTC):
        raise Unauthenticated(f"the key expired at {caller.expires_at.isoformat()}", code="key_expired")
    return caller
