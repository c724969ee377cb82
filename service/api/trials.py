"""Trials over HTTP: asking for them, reporting on them, reading them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from foretune.states import TrialState
from foretune.wire.base import Page
from foretune.wire.trials import (
    Completed,
    CompleteRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    Measurement,
    MeasurementsAnswer,
    MeasurementsRequest,
    Trial,
)
from service.api.call import OnceCall, ThisCall, encode, json_answer
from service.api.documented import problems
from service.api.downloads import stream_file
from service.api.parameters import FIRST_PAGE, Cursor, ExperimentId, Limit, TrialId
from service.api.strict import StrictRoute
from service.usecases import next_trials, reports, trials

router = APIRouter(prefix="/v1", tags=["trials"], route_class=StrictRoute)


@router.post("/trials/{trial_id}/measurements", response_model=MeasurementsAnswer, responses=problems(404, 409))
async def record_measurements(call: ThisCall, trial_id: TrialId, request: MeasurementsRequest) -> Response:
    """Reports epochs of a trial, extends its lease, and answers whether to go on. Repeating an epoch is harmless."""
    return await call.report(trial_id, lambda ledger: reports.record(ledger, call.bus, trial_id, request))


@router.post("/trials/{trial_id}/heartbeat", response_model=HeartbeatAnswer, responses=problems(404, 409))
async def extend_lease(call: ThisCall, trial_id: TrialId, request: HeartbeatRequest) -> Response:
    """Extends the lease of a trial whose epochs are long."""
    return await call.report(trial_id, lambda ledger: reports.heartbeat(ledger, trial_id, request))


@router.post("/trials/{trial_id}/complete", response_model=Completed, responses=problems(404, 409))
async def complete_trial(call: OnceCall, trial_id: TrialId, request: CompleteRequest) -> Response:
    """Ends a trial: with its final value, or with an outcome and a reason.

    With `next` it leases the experiment's next trials as well, which have seen this ending. The ending stands even
    where there are none. Telling an ending twice is harmless; an Idempotency-Key makes `next` so, too.
    """
    if request.next is None:
        return await call.report(trial_id, lambda ledger: reports.complete(ledger, trial_id, request))
    ledgers = call.parts.ledgers
    answer = await next_trials.complete_and_suggest(
        call.database, ledgers, call.bus, call.project, trial_id, request, call.once
    )
    return json_answer(encode(answer))


@router.get("/experiments/{experiment_id}/trials", response_model=Page[Trial], responses=problems(404))
async def list_trials(
    call: ThisCall,
    experiment_id: ExperimentId,
    state: TrialState | None = None,
    limit: Limit = FIRST_PAGE,
    cursor: Cursor = None,
) -> Response:
    """In order of creation."""
    return await call.read(
        lambda tx: trials.list_page(tx, call.project, experiment_id, state=state, limit=limit, cursor=cursor)
    )


@router.get("/trials/{trial_id}", response_model=Trial, responses=problems(404))
async def get_trial(call: ThisCall, trial_id: TrialId) -> Response:
    """Setting, state and values of a trial."""
    return await call.read(lambda tx: trials.get(tx, call.project, trial_id))


@router.get("/trials/{trial_id}/measurements", response_model=Page[Measurement], responses=problems(404))
async def list_measurements(
    call: ThisCall, trial_id: TrialId, limit: Limit = FIRST_PAGE, cursor: Cursor = None
) -> Response:
    """What each epoch reported, in order."""
    return await call.read(lambda tx: trials.measurements_page(tx, call.project, trial_id, limit=limit, cursor=cursor))


@router.get(
    "/trials/{trial_id}/checkpoint",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "safetensors; its metadata holds the configuration.",
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "(bytes of a safetensors file)",
                }
            },
        },
        **problems(404),
    },
)
async def get_checkpoint(call: ThisCall, trial_id: TrialId) -> Response:
    """The newest checkpoint that is kept."""
    return await call.parts.in_thread(_open_checkpoint, call, trial_id)


def _open_checkpoint(call: ThisCall, trial_id: str) -> Response:
    with call.database.reading() as tx:
        place = trials.checkpoint(tx, call.project, trial_id)
    name = f"{trial_id}-epoch-{place.epoch}.safetensors"
    return stream_file(call.parts.artifacts, place.artifact, name)
