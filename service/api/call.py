"""One call of the API, between its endpoint and its use case: a transaction, an answer, and the memory of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import structlog
from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from foretune.errors import ForetuneError, IdempotencyConflict
from service.api.auth import Presented, presented_in
from service.api.parts import Parts
from service.bus import Bus
from service.db.ledger import Ledger
from service.db.session import Database, Transaction
from service.usecases import idempotency
from service.usecases.idempotency import Once, Remembered

_log = structlog.get_logger(__name__)

Work: TypeAlias = Callable[[Transaction], BaseModel]
"""A use case with everything but its transaction."""

LONGEST_IDEMPOTENCY_KEY = 255
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=LONGEST_IDEMPOTENCY_KEY,
        description="Any string, new for each request: the same key with the same body gets the first answer again, "
        "for a day; with another body 409.",
        examples=["0b7e6c1a5f7d4b6f"],
    ),
]


@dataclass(frozen=True)
class Call:
    """Who calls, and what the answer is made with."""

    parts: Parts
    presented: Presented
    once: Once | None = None
    """Its Idempotency-Key, when it has one."""

    @property
    def project(self) -> str:
        return self.presented.caller.project

    @property
    def database(self) -> Database:
        return self.parts.database

    @property
    def bus(self) -> Bus:
        return self.parts.bus

    async def read(self, work: Work) -> Response:
        """The work's result as JSON."""
        return await self.parts.in_thread(self._read, work)

    async def write(self, work: Work, status: int = 200) -> Response:
        """The work's result as JSON, committed before it leaves. With an Idempotency-Key the work is done once."""
        return await self.parts.in_thread(self._write, work, status)

    async def report(self, trial_id: str, work: Callable[[Ledger], BaseModel]) -> Response:
        """The work's result as JSON, committed before it leaves, together with what others do to the experiment."""
        done = self.parts.ledgers.on_trial(self.project, trial_id, lambda ledger: encode(work(ledger)))
        return json_answer(await done)

    async def delete(self, work: Callable[[Transaction], list[str]]) -> Response:
        """204, after the commit and after the artifacts are gone whose keys the work names."""
        await self.parts.in_thread(self._delete, work)
        return Response(status_code=204)

    async def seal(self, work: Work, status: int) -> Response:
        """Like `write`, for a result that holds a secret: it is remembered so that only this call's key reads it."""
        return await self.parts.in_thread(self._write, work, status, self.presented.key)

    def _read(self, work: Work) -> Response:
        with self.database.reading() as tx:
            return json_answer(encode(work(tx)))

    def _write(self, work: Work, status: int, secret: str | None = None) -> Response:
        with self.database.transaction() as tx:
            if self.once is None:
                body = encode(work(tx))
            else:
                remembered = idempotency.begin(tx, self.project, self.once)
                if remembered is not None:
                    return replay(self.once, remembered, secret)
                body = encode(work(tx))
                text = body.decode()
                kept = idempotency.seal(text, secret) if secret else text
                idempotency.remember(tx, self.project, self.once, status=status, body=kept)
        return json_answer(body, status)

    def _delete(self, work: Callable[[Transaction], list[str]]) -> None:
        with self.database.transaction() as tx:
            orphans = work(tx)
        for key in orphans:
            try:
                self.parts.artifacts.delete(key)
            except ForetuneError as error:
                # Nobody refers to it any more: it costs space, and nothing else.
                _log.warning("artifact_left", key=key, error=error.message)


def encode(answer: BaseModel) -> bytes:
    """JSON, written by Pydantic's serializer without a detour through Python values."""
    return answer.__pydantic_serializer__.to_json(answer)


def json_answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def replay(once: Once, remembered: Remembered, secret: str | None = None) -> Response:
    """The first answer again, and a header that says so. Raises IdempotencyConflict while there is none to give."""
    text: str | None = remembered.body
    if secret is not None:
        text = idempotency.unseal(remembered.body, secret)
    if remembered.status == 0 or text is None:
        why = (
            "its first call has not answered yet" if text is not None else "it was used with another key of the project"
        )
        raise IdempotencyConflict(f"Idempotency-Key {once.key!r}: {why}", code="idempotency_conflict")
    answer = json_answer(text.encode(), remembered.status)
    answer.headers["Idempotency-Replayed"] = "true"
    return answer


async def _this_call(request: Request) -> Call:
    return Call(request.app.state.parts, presented_in(request.scope))


async def _this_call_once(request: Request, idempotency_key: IdempotencyKey = None) -> Call:
    once = None
    if idempotency_key is not None:
        mark = idempotency.fingerprint(request.method, request.url.path, await request.body())
        once = Once(idempotency_key, mark)
    return Call(request.app.state.parts, presented_in(request.scope), once)


ThisCall = Annotated[Call, Depends(_this_call)]
OnceCall = Annotated[Call, Depends(_this_call_once)]
"""The call of an endpoint that heeds Idempotency-Key."""
