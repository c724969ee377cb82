"""Experiments over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from foretune.errors import FieldError, InvalidRequest
from foretune.states import ExperimentState
from foretune.wire.base import Page
from foretune.wire.experiments import Experiment, ExperimentPatch, ExperimentRequest
from service.api.call import OnceCall, ThisCall
from service.api.documented import problems
from service.api.parameters import FIRST_PAGE, Cursor, ExperimentId, Limit
from service.api.strict import StrictRoute
from service.usecases import experiments

router = APIRouter(prefix="/v1/experiments", tags=["experiments"], route_class=StrictRoute)

Label = Annotated[str | None, Query(max_length=320, description="`key:value`", examples=["team:vision"])]


@router.post("", status_code=201, response_model=Experiment, responses=problems(409))
async def create_experiment(call: OnceCall, request: ExperimentRequest) -> Response:
    """Submits a tuning job. `managed`: our workers train; `external`: the client trains, and asks and tells."""
    return await call.write(lambda tx: experiments.submit(tx, call.bus, call.project, request), 201)


@router.get("", response_model=Page[Experiment])
async def list_experiments(
    call: ThisCall,
    state: ExperimentState | None = None,
    label: Label = None,
    limit: Limit = FIRST_PAGE,
    cursor: Cursor = None,
) -> Response:
    """The newest first."""
    pair = _pair(label)
    return await call.read(
        lambda tx: experiments.list_page(tx, call.project, state=state, label=pair, limit=limit, cursor=cursor)
    )


@router.get("/{experiment_id}", response_model=Experiment, responses=problems(404))
async def get_experiment(call: ThisCall, experiment_id: ExperimentId) -> Response:
    """State, progress and the best trial so far."""
    return await call.read(lambda tx: experiments.get(tx, call.project, experiment_id))


@router.patch("/{experiment_id}", response_model=Experiment, responses=problems(404, 409))
async def change_experiment(call: ThisCall, experiment_id: ExperimentId, patch: ExperimentPatch) -> Response:
    """Raises a budget, widens the space, renames. Nothing can be narrowed."""
    return await call.write(lambda tx: experiments.patch(tx, call.bus, call.project, experiment_id, patch))


@router.delete("/{experiment_id}", status_code=204, response_class=Response, responses=problems(404, 409))
async def delete_experiment(call: ThisCall, experiment_id: ExperimentId) -> Response:
    """Deletes a finished experiment with its trials, measurements and checkpoints."""
    return await call.delete(lambda tx: experiments.delete(tx, call.project, experiment_id))


@router.post("/{experiment_id}/pause", response_model=Experiment, responses=problems(404, 409))
async def pause_experiment(call: OnceCall, experiment_id: ExperimentId) -> Response:
    """Workers hand their trials back at the next epoch. Pausing what is paused changes nothing."""
    return await call.write(lambda tx: experiments.pause(tx, call.bus, call.project, experiment_id))


@router.post("/{experiment_id}/resume", response_model=Experiment, responses=problems(404, 409))
async def resume_experiment(call: OnceCall, experiment_id: ExperimentId) -> Response:
    """Goes on where it paused. Resuming what runs changes nothing."""
    return await call.write(lambda tx: experiments.resume(tx, call.bus, call.project, experiment_id))


@router.post("/{experiment_id}/cancel", response_model=Experiment, responses=problems(404, 409))
async def cancel_experiment(call: OnceCall, experiment_id: ExperimentId) -> Response:
    """Ends it and keeps every result. Canceling what is canceled changes nothing."""
    return await call.write(lambda tx: experiments.cancel(tx, call.bus, call.project, experiment_id))


def _pair(label: str | None) -> tuple[str, str] | None:
    if label is None:
        return None
    key, colon, value = label.partition(":")
    if not colon:
        message = "must be `key:value`"
        raise InvalidRequest(f"label {message}, not {label!r}", errors=[FieldError(("query", "label"), message)])
    return key, value
