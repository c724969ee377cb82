"""What the meta-learner recommends, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from foretune.wire.recommendations import RecommendationRequest, Recommendations
from service.api.call import ThisCall, encode, json_answer
from service.api.documented import problems
from service.api.parameters import ExperimentId
from service.api.strict import StrictRoute
from service.usecases import recommendations

router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=StrictRoute)

Count = Annotated[int, Query(ge=1, le=50, description="How many to answer, the best first.")]


@router.post("/recommendations", response_model=Recommendations, responses=problems(404, 409))
async def recommend(call: ThisCall, request: RecommendationRequest) -> Response:
    """What to try on a task before any trial of it has run. It changes nothing, so it may be asked again at will."""
    found = await recommendations.for_task(call.database, call.bus, call.project, request)
    return json_answer(encode(found))


@router.get("/experiments/{experiment_id}/recommendation", response_model=Recommendations, responses=problems(404))
async def recommend_for_experiment(call: ThisCall, experiment_id: ExperimentId, count: Count = 3) -> Response:
    """Given the experiment's own results: the best seen and the best predicted."""
    found = await recommendations.for_experiment(call.database, call.bus, call.project, experiment_id, count)
    return json_answer(encode(found))
