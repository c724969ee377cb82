"""Histories from elsewhere: JSON lines, read while they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from starlette.responses import Response

from foretune.errors import ForetuneError, TooLarge
from foretune.wire.histories import EXAMPLE
from foretune.wire.recommendations import ImportAnswer, ImportFault
from service.api.call import Call, ThisCall, encode, json_answer
from service.api.documented import problems
from service.api.limits import Body
from service.api.problems import UnsupportedMediaType
from service.api.strict import StreamRoute
from service.db.session import Database
from service.usecases import histories

router = APIRouter(prefix="/v1/histories", tags=["recommendations"], route_class=StreamRoute)

LONGEST_LINE_BYTES = 16 * 2**20
MAX_FAULTS = 1000
"""Further bad lines are counted in the last fault, not listed."""
_BATCH_BYTES = 2**20
_MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_BODY = {
    "required": True,
    "description": "One finished experiment a line. A bad line never spoils a good one; sending a line again is "
    "harmless. Lines are kept as they arrive.",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": EXAMPLE}},
}


@dataclass
class _Imported:
    """What came of the lines so far."""

    imported: int = 0
    duplicates: int = 0
    faults: list[ImportFault] = field(default_factory=list)
    unlisted: int = 0

    def fault(self, line: int, code: str, detail: str) -> None:
        if len(self.faults) < MAX_FAULTS - 1:
            self.faults.append(ImportFault(line=line, code=code, detail=detail))
            return
        self.unlisted += 1
        last = ImportFault(line=line, code=code, detail=f"{self.unlisted} more bad lines, up to this one: {detail}")
        self.faults = [*self.faults[: MAX_FAULTS - 1], last]


@router.post("", response_model=ImportAnswer, responses=problems(413, 415), openapi_extra={"requestBody": _BODY})
async def import_histories(call: ThisCall, request: Request) -> Response:
    """Teaches the service finished experiments from elsewhere; a history that is known already is a duplicate."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        shown = media_type or "a body without a Content-Type"
        raise UnsupportedMediaType(f"this endpoint reads application/x-ndjson, not {shown}")
    found = await _import(call, Body(request))
    answer = ImportAnswer(imported=found.imported, duplicates=found.duplicates, errors=found.faults)
    return json_answer(encode(answer))


async def _import(call: Call, body: Body) -> _Imported:
    found = _Imported()
    batch: list[tuple[int, bytes]] = []
    size = number = 0
    async for line in _lines(body, call.parts.settings.foretune_max_upload_bytes):
        number += 1
        if line is None:
            found.fault(number, TooLarge.code, f"the line is longer than {LONGEST_LINE_BYTES} bytes")
        elif line:
            batch.append((number, line))
            size += len(line)
        if size >= _BATCH_BYTES:
            await call.parts.in_thread(_keep, call.database, call.project, batch, found)
            batch, size = [], 0
    await call.parts.in_thread(_keep, call.database, call.project, batch, found)
    return found


def _keep(database: Database, project: str, batch: list[tuple[int, bytes]], found: _Imported) -> None:
    for number, line in batch:
        try:
            with database.transaction() as tx:
                new = histories.import_line(tx, project, line)
        except ForetuneError as error:
            if error.code in ("database_away", "storage_full"):
                raise
            found.fault(number, error.code, error.message)
            continue
        found.imported += new
        found.duplicates += not new


async def _lines(body: Body, limit_bytes: int) -> AsyncIterator[bytes | None]:
    """The lines without their ends; None for one that is too long to be held. Raises TooLarge."""
    held = bytearray()
    skipping = False
    size = 0
    async for piece in body.pieces():
        size += len(piece)
        if size > limit_bytes:
            await body.drain()
            raise TooLarge(
                f"the body is larger than {limit_bytes} bytes, the most that is read at once: send fewer lines a "
                "request; what was kept already is harmless to send again"
            )
        first, *rest = piece.split(b"\n")
        held += b"" if skipping else first
        for after in rest:
            yield None if skipping or len(held) > LONGEST_LINE_BYTES else bytes(held).strip()
            skipping = False
            held = bytearray(after)
        if len(held) > LONGEST_LINE_BYTES:
            skipping = True
            held.clear()
    if held or skipping:
        yield None if skipping else bytes(held).strip()
