"""All trials of an experiment as a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from service.api.call import ThisCall
from service.api.documented import problems
from service.api.downloads import attachment
from service.api.parameters import ExperimentId
from service.api.strict import StrictRoute
from service.usecases import exports
from service.usecases.exports import MEDIA_TYPES, ExportFormat

router = APIRouter(prefix="/v1/experiments", tags=["experiments"], route_class=StrictRoute)

_SHOWN = {
    ExportFormat.CSV: "number,state,value,hyperparameters.width\r\n12,COMPLETED,0.983,256\r\n",
    ExportFormat.JSONL: '{"number": 12, "state": "COMPLETED", "value": 0.983, "measurements": []}\n',
    ExportFormat.PARQUET: "(bytes of a Parquet file)",
}
"""Shortened: a trial has more columns."""

Format = Annotated[ExportFormat, Query(alias="format", description="How the file is written.")]


@router.get(
    "/{experiment_id}/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "csv: one row a trial. parquet: one row a trial, with its curve. jsonl: one trial a line, "
            "with its measurements.",
            "content": {
                kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}, "example": _SHOWN[chosen]}
                for chosen, kind in MEDIA_TYPES.items()
            },
        },
        **problems(404),
    },
)
async def export_experiment(call: ThisCall, experiment_id: ExperimentId, chosen: Format = ExportFormat.CSV) -> Response:
    """Streams every trial, whatever their number."""
    pieces = await call.parts.in_thread(exports.stream, call.database, call.project, experiment_id, chosen)
    headers = {"Content-Disposition": attachment(f"{experiment_id}.{chosen.value}")}
    return StreamingResponse(pieces, headers=headers, media_type=MEDIA_TYPES[chosen])
