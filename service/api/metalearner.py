"""What the service has learned from, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from foretune.wire.histories import MetaLearner, Priors, RollBack
from service.api.call import ThisCall, encode, json_answer
from service.api.documented import problems
from service.api.parameters import ExperimentId
from service.api.strict import StrictRoute
from service.usecases import metalearner

router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=StrictRoute)


@router.get("/metalearner", response_model=MetaLearner)
async def get_metalearner(call: ThisCall) -> Response:
    """What proposals rest on: the histories, the model in use, how its replay went, which were refused and why."""
    return await call.read(lambda tx: metalearner.describe(tx, call.project))


@router.post("/metalearner/fit", status_code=202, response_model=MetaLearner)
async def fit_metalearner(call: ThisCall) -> Response:
    """Makes histories of every experiment that has finished, and begins a fit where any is new since the last or was
    refused.

    The new model takes the place of the one in use if its replay on held-out histories is no worse. It may be asked for
    at will.
    """
    found = await call.parts.in_thread(metalearner.fit, call.database, call.project)
    return json_answer(encode(found), 202)


@router.post("/metalearner/rollback", response_model=MetaLearner, responses=problems(404, 409))
async def roll_back_metalearner(call: ThisCall, body: RollBack) -> Response:
    """Uses a retired model again. The one in use is refused, and so is not heard what it knew beyond the other."""
    return await call.write(lambda tx: metalearner.roll_back(tx, call.project, body.version))


@router.get("/experiments/{experiment_id}/priors", response_model=Priors, responses=problems(404))
async def get_priors(call: ThisCall, experiment_id: ExperimentId) -> Response:
    """Which histories count for an experiment, and how much: those that had ended when it was submitted."""
    found = await metalearner.priors(call.database, call.bus, call.project, experiment_id)
    return json_answer(encode(found))
