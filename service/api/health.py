"""Whether the service is alive, and whether it is ready. Open to all: whoever watches a service has no key."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.responses import Response

from foretune.wire.service import Health, Readiness
from service.api.call import encode, json_answer
from service.api.parts import Parts
from service.api.strict import StrictRoute

router = APIRouter(tags=["service"], route_class=StrictRoute)

_ALIVE = encode(Health(status="ok", version=version("foretune")))


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """Alive: the process answers."""
    return json_answer(_ALIVE)


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "A part does not answer; `parts` says which, and why."}},
)
async def readyz(request: Request) -> Response:
    """Ready: the database, the broker and at least one worker answer."""
    parts: Parts = request.app.state.parts
    found = await parts.in_thread(parts.readings.readiness)
    answer = json_answer(encode(found), 200 if found.ready else 503)
    if not found.ready:
        answer.headers["Retry-After"] = "1"
    return answer
