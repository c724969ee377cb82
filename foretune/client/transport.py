"""One call to the service: kept-alive connections, retries with back-off, and precise errors."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, urlencode, urlsplit

import httpx

from foretune.client.answers import Reply, error_of, retry_after_s
from foretune.client.connections import CONNECT_TIMEOUT_S, Connections
from foretune.client.settings import Settings
from foretune.errors import ConnectionFailed, ForetuneError, InvalidRequest, NotFound, TooManyRequests, Unavailable

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Payload:
    """A request's body: bytes, or the fields and the one file of a form."""

    content: bytes | None = None
    fields: Mapping[str, str] | None = None
    file: tuple[str, IO[bytes]] | None = None
    """Its name and its content from the start; it must be seekable, because a retry reads it again."""


_EMPTY = Payload()


@dataclass(frozen=True)
class RetryPolicy:
    """Waits of `first_wait_s` · 2^n, at most `longest_wait_s`, each shortened at random by up to half."""

    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    give_up_after_s: float = 60.0
    """Since the call began; long enough for a restart of the service."""
    give_up_unseen_s: float = 2.0
    """The same as long as the service has never answered this client: then it is probably not there."""

    def wait_s(self, attempt: int) -> float:
        """Before attempt number `attempt` + 1; the first attempt is number 1."""
        # 2.0**1100 overflows; after 20 doublings the wait is the longest one anyway.
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 20))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - it only spreads retries


@dataclass(frozen=True)
class _Pools:
    """The open connections of one process."""

    pid: int
    any: httpx.HTTPTransport
    direct: Connections | None
    """For small calls; None behind a proxy."""


class Transport:
    """Thread-safe; survives a fork, in which the child gets connections of its own."""

    def __init__(self, settings: Settings, timeout_s: float, retry: RetryPolicy) -> None:
        self.settings = settings
        self.retry = retry
        self._timeout_s = timeout_s
        self._base = urlsplit(settings.url)
        self._origin = f"{self._base.scheme}://{self._base.netloc}"
        self._pools: _Pools | None = None
        self._lock = threading.Lock()
        self._seen = False
        self._closed = False
        headers = {"accept": "application/json", "user-agent": "foretune-python"}
        if settings.api_key:
            headers["authorization"] = f"Bearer {settings.api_key}"
        self._headers = headers

    def close(self) -> None:
        """Closes all connections; the transport cannot be used afterwards."""
        with self._lock:
            self._closed = True
            pools, self._pools = self._pools, None
        if pools is not None and pools.pid == os.getpid():
            pools.any.close()
            if pools.direct is not None:
                pools.direct.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json_body: object = None,
        params: Mapping[str, object] | None = None,
        creates: bool = False,
        timeout_s: float | None = None,
        give_up_after_s: float | None = None,
    ) -> Reply:
        """Sends JSON, retries what may be retried, reads the answer.

        `creates` adds an Idempotency-Key, the same one for every retry. `timeout_s` is added to the client's own
        timeout, for calls that wait on purpose. Raises what the service's problem document says, or ConnectionFailed.
        """
        headers: dict[str, str] = {}
        payload = _EMPTY
        if json_body is not None:
            payload = Payload(encode_json(json_body))
            headers["content-type"] = "application/json"
        return self.send(
            method,
            path,
            payload,
            headers=headers,
            params=params,
            creates=creates,
            timeout_s=timeout_s,
            give_up_after_s=give_up_after_s,
        )

    def send(
        self,
        method: str,
        path: str,
        payload: Payload,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, object] | None = None,
        creates: bool = False,
        timeout_s: float | None = None,
        give_up_after_s: float | None = None,
    ) -> Reply:
        """Like `call`, with any body."""
        all_headers = {**self._headers, **headers}
        if creates:
            all_headers["idempotency-key"] = uuid.uuid4().hex
        url = self.url(path, params)
        timeout_s = self._timeout_s + (timeout_s or 0.0)
        started, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                reply = self._once(method, url, all_headers, payload, timeout_s)
            except httpx.TransportError as error:
                failure: ForetuneError = self.unreachable(error)
                wait_s = self.retry.wait_s(attempt)
            else:
                if reply.status < 300:
                    return reply
                failure = error_of(reply.status, reply.headers, reply.content)
                if method == "DELETE" and attempt > 1 and isinstance(failure, NotFound):
                    return reply  # the lost answer of an earlier attempt was the deletion
                if not may_retry(reply.status, failure):
                    raise failure
                wait_s = max(self.retry.wait_s(attempt), retry_after_s(reply.headers) or 0.0)
            left_s = self.patience_s(give_up_after_s) - (time.monotonic() - started)
            if wait_s > left_s:
                raise failure
            time.sleep(wait_s)

    def probe(self, path: str, timeout_s: float) -> Reply:
        """One attempt at a GET, whatever the status of the answer. Raises ConnectionFailed."""
        try:
            return self._once("GET", self.url(path), self._headers, _EMPTY, timeout_s)
        except httpx.TransportError as error:
            raise self.unreachable(error) from error

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, object] | None, headers: Mapping[str, str], read_timeout_s: float
    ) -> Iterator[httpx.Response]:
        """One attempt at a GET whose answer is read piece by piece.

        Raises the service's error for a status of 300 or more; httpx.TransportError when the connection fails.
        """
        request = self._request("GET", self.url(path, params), {**self._headers, **headers}, _EMPTY, read_timeout_s)
        response = self._current().any.handle_request(request)
        try:
            self._seen = True
            if response.status_code >= 300:
                raise error_of(response.status_code, response.headers, response.read())
            yield response
        finally:
            response.close()

    def url(self, path: str, params: Mapping[str, object] | None = None) -> str:
        """The absolute URL of a path that starts with a slash; parameters that are None are left out."""
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None})
        return f"{self.settings.url}{path}{'?' + query if query else ''}"

    def unreachable(self, error: httpx.TransportError) -> ConnectionFailed:
        """What to tell the user when the service did not answer."""
        reason = str(error) or type(error).__name__
        advice = "Is it running? Start it with `foretune up`, or set FORETUNE_URL."
        if not self.settings.is_local:
            advice = "Is the address right? FORETUNE_URL sets it."
        if isinstance(error, httpx.TimeoutException):
            reason = "it did not answer in time"
            advice = "It may be overloaded; try again, or set FORETUNE_URL."
        return ConnectionFailed(f"cannot reach {self.settings.url}: {reason}. {advice}")

    def patience_s(self, asked_s: float | None) -> float:
        """How long to go on trying, given what was asked and whether the service was ever there."""
        patience_s = self.retry.give_up_after_s if asked_s is None else asked_s
        return patience_s if self._seen else min(patience_s, self.retry.give_up_unseen_s)

    def _once(self, method: str, url: str, headers: Mapping[str, str], payload: Payload, timeout_s: float) -> Reply:
        pools = self._current()
        if pools.direct is not None and payload.file is None:
            target = url[len(self._origin) :] or "/"
            reply = pools.direct.exchange(method, target, headers, payload.content, timeout_s)
        else:
            response = pools.any.handle_request(self._request(method, url, headers, payload, timeout_s))
            try:
                content = response.read()
            finally:
                response.close()
            reply = Reply(response.status_code, response.headers, content)
        self._seen = True
        return reply

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], payload: Payload, timeout_s: float
    ) -> httpx.Request:
        connect_s = min(timeout_s, CONNECT_TIMEOUT_S)
        timeout = {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        extensions = {"timeout": timeout}
        if payload.file is None:
            return httpx.Request(method, url, headers=headers, content=payload.content, extensions=extensions)
        name, content = payload.file
        content.seek(0)
        files = {"file": (name, content, "application/octet-stream")}
        return httpx.Request(method, url, headers=headers, data=payload.fields, files=files, extensions=extensions)

    def _current(self) -> _Pools:
        pools = self._pools
        if pools is not None and pools.pid == os.getpid():
            return pools
        with self._lock:
            if self._closed:
                raise ConnectionFailed("this client was closed; make a new one")
            if self._pools is None or self._pools.pid != os.getpid():
                # After a fork the parent's sockets are left alone: closing them here would end its TLS connections.
                proxy = self._proxy()
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0)
                self._pools = _Pools(
                    pid=os.getpid(),
                    any=httpx.HTTPTransport(limits=limits, proxy=proxy),
                    direct=Connections(self._base) if proxy is None else None,
                )
            return self._pools

    def _proxy(self) -> str | None:
        host = self._base.hostname or ""
        if self.settings.is_local or urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(self._base.scheme)


def may_retry(status: int, failure: ForetuneError) -> bool:
    """Whether the same request may do better later: overload and absence pass, a full disk does not by itself."""
    if status not in _RETRIED_STATUSES or failure.code == "storage_full":
        return False
    return isinstance(failure, TooManyRequests | Unavailable)


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON. Raises InvalidRequest for what JSON cannot say: NaN, infinities, foreign objects."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    # A segment of dots would be resolved away by intermediaries, and an empty one would name the collection.
    if text.strip(".") == "":
        raise InvalidRequest(f"{text!r} is neither an id nor a name")
    return quote(text, safe="")
