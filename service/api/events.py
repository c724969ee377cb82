"""The event log as Server-Sent Events (WHATWG HTML, section 9.2). No transaction is open between two reads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from foretune.errors import ForetuneError
from foretune.events import Event, EventType
from foretune.json_types import JsonObject
from service.api.call import Call, ThisCall
from service.api.documented import problems
from service.api.metrics import STREAMS
from service.api.parameters import ExperimentId
from service.api.strict import StrictRoute
from service.usecases import events
from service.usecases.events import EventPage

router = APIRouter(prefix="/v1/experiments", tags=["events"], route_class=StrictRoute)

_EVENTS_A_READ = 500
_POLL_S = 1.0
"""Redis only wakes: without it news comes this late."""
_COMMENT_EVERY_S = 15.0
_COMMENT = b": still here\n\n"
_RETRY = b"retry: 1000\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_EVENT: JsonObject = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "event": {"type": "string", "enum": [kind.value for kind in EventType]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}

Sequence64 = Annotated[int, Query(ge=0, le=2**63 - 1, description="Resume after this event.")]
LastEventId = Annotated[
    int | None,
    Header(ge=0, le=2**63 - 1, description="Resume after this event; it counts before `after`."),
]


@router.get(
    "/{experiment_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One event for each change: `id` counts from 1 without gaps, `data` is JSON. The stream "
            "ends after the event that finishes the experiment.",
            "content": {
                "text/event-stream": {
                    # Of one event, as OpenAPI 3.2 will call `itemSchema`.
                    "schema": _EVENT,
                    "example": 'id: 1\nevent: experiment.state\ndata: {"state":"QUEUED","reason":null}\n\n',
                }
            },
        },
        **problems(404),
    },
)
async def stream_events(
    call: ThisCall, experiment_id: ExperimentId, after: Sequence64 = 0, last_event_id: LastEventId = None
) -> Response:
    """What happened since event number `after`, then what happens, while it happens."""
    start = after if last_event_id is None else last_event_id
    # Read before the answer begins, so that an unknown experiment is a 404.
    first = await call.parts.in_thread(_read, call, experiment_id, start)
    return StreamingResponse(
        _stream(call, experiment_id, start, first), headers=_HEADERS, media_type="text/event-stream"
    )


async def _stream(call: Call, experiment_id: str, after: int, page: EventPage) -> AsyncIterator[bytes]:
    parts = call.parts
    ends_at = time.monotonic() + parts.settings.foretune_stream_max_s
    spoke_at = time.monotonic()
    yield _RETRY
    with STREAMS.track_inprogress(), parts.waker.listen_for(experiment_id) as wake:
        # Something may have been published between the first read and the line above.
        woken = True
        while True:
            if page.events:
                after = page.events[-1].sequence
                spoke_at = time.monotonic()
                yield encode_events(page.events)
            if page.finished or parts.stopping or time.monotonic() > ends_at:
                return
            if len(page.events) < _EVENTS_A_READ and not woken:
                await wake.wait(_POLL_S)
            woken = False
            if time.monotonic() - spoke_at > _COMMENT_EVERY_S:
                spoke_at = time.monotonic()
                yield _COMMENT
            try:
                page = await parts.in_thread(_read, call, experiment_id, after)
            except ForetuneError:
                # Deleted, or the database is away: the client's next connection hears which.
                return


def encode_events(found: Sequence[Event]) -> bytes:
    """As the stream carries them. JSON has no line breaks of its own."""
    return b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n" % (event.sequence, event.type.encode(), orjson.dumps(event.data))
        for event in found
    )


def _read(call: Call, experiment_id: str, after: int) -> EventPage:
    with call.database.reading() as tx:
        return events.page_after(tx, call.project, experiment_id, after, _EVENTS_A_READ)
