"""Asking for trials of an external experiment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from foretune.wire.trials import SuggestionRequest, Suggestions
from service.api.call import OnceCall, encode, json_answer
from service.api.documented import problems
from service.api.parameters import ExperimentId
from service.api.strict import StrictRoute
from service.usecases import suggestions

router = APIRouter(prefix="/v1/experiments", tags=["trials"], route_class=StrictRoute)

Asked = Annotated[SuggestionRequest, Body()]
_ONE = SuggestionRequest()


@router.post("/{experiment_id}/suggestions", response_model=Suggestions, responses=problems(404, 409))
async def suggest_trials(call: OnceCall, experiment_id: ExperimentId, request: Asked = _ONE) -> Response:
    """Leases trials to the caller: freed ones first, then new proposals that have seen every result told so far.

    Without a body it is one trial.
    """
    ledgers, bus = call.parts.ledgers, call.bus
    found = await suggestions.suggest(call.database, ledgers, bus, call.project, experiment_id, request, call.once)
    return json_answer(encode(found))
