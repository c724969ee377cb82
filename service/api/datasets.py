"""Data sets over HTTP. An upload is stored, written down, parsed by a worker, and answered when that is done."""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from foretune.errors import FieldError, ForetuneError, InvalidDataset, InvalidRequest
from foretune.ids import new_id
from foretune.wire import examples
from foretune.wire.base import Page
from foretune.wire.datasets import Dataset, DatasetState, DatasetUpload, Neighbours, PendingDataset
from service.api.call import Call, IdempotencyKey, ThisCall, encode, json_answer
from service.api.documented import problems
from service.api.parameters import FIRST_PAGE, Cursor, DatasetRef, Limit
from service.api.strict import StreamRoute, StrictRoute
from service.api.uploads import FILE_FIELD, StoredForm, store_form
from service.usecases import datasets, idempotency, neighbours
from service.usecases.datasets import Upload
from service.usecases.idempotency import Once

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StrictRoute)
uploads = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StreamRoute)

NetworkName = Annotated[
    str | None, Query(max_length=200, description="Only tasks of this network, those that ship with it included.")
]
NeighbourLimit = Annotated[int, Query(ge=1, le=100, description="How many, the nearest first.")]

_PARSED_WITHIN_S = 30.0
_POLL_S = 1.0
_FIELDS = frozenset(DatasetUpload.model_fields)
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FILE_FIELD],
                "additionalProperties": False,
                "properties": {
                    FILE_FIELD: {
                        "type": "string",
                        "format": "binary",
                        "description": "CSV, Parquet, NPZ with the arrays X and y, or UTF-8 text (language modelling).",
                    },
                    "name": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 200,
                        "description": "Unique in the project.",
                    },
                    "target": {"type": "string", "description": "The column to predict; the last one when absent."},
                    "task": {
                        "type": "string",
                        "enum": ["classification", "regression", "language-modelling"],
                        "description": "What to learn; guessed when absent.",
                    },
                },
            },
            "example": examples.UPLOAD,
            "encoding": {FILE_FIELD: {"contentType": "application/octet-stream"}},
        }
    },
}


@router.get("", response_model=Page[Dataset])
async def list_datasets(call: ThisCall, limit: Limit = FIRST_PAGE, cursor: Cursor = None) -> Response:
    """Those of the project and those built in, the newest first."""
    return await call.read(lambda tx: datasets.list_page(tx, call.project, limit=limit, cursor=cursor))


@router.get("/{dataset}", response_model=Dataset | PendingDataset, responses=problems(404))
async def get_dataset(call: ThisCall, dataset: DatasetRef) -> Response:
    """One data set. While its file is being read it has a `state` and little else."""
    return await call.read(lambda tx: datasets.status(tx, call.project, dataset))


@router.get("/{dataset}/neighbours", response_model=Neighbours, responses=problems(404, 409))
async def get_neighbours(
    call: ThisCall, dataset: DatasetRef, network: NetworkName = None, limit: NeighbourLimit = 10
) -> Response:
    """The prior tasks that a data set is most like, and why: what experiments on it learn from first."""
    found = await neighbours.nearest(call.database, call.bus, call.project, dataset, network=network, limit=limit)
    return json_answer(encode(found))


@router.delete("/{dataset}", status_code=204, response_class=Response, responses=problems(403, 404, 409))
async def delete_dataset(call: ThisCall, dataset: DatasetRef) -> Response:
    """Deletes a data set that no unfinished experiment uses. Results of experiments on it stay."""
    return await call.delete(lambda tx: datasets.delete(tx, call.project, dataset))


@uploads.post(
    "",
    status_code=201,
    response_model=Dataset,
    openapi_extra={"requestBody": _FORM},
    responses={
        200: {
            "model": Dataset,
            "description": "This file was uploaded before: the data set that it became. "
            "Where that has another name, `warnings` says so.",
        },
        202: {"model": PendingDataset, "description": "Stored, and still being read: ask for it by its id."},
        **problems(409, 413, 415),
    },
)
async def upload_dataset(call: ThisCall, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    """Uploads a file. It is read by a worker, and nothing in it is ever executed."""
    dataset_id = new_id("dst")
    key = datasets.upload_key(dataset_id)
    form = await store_form(request, call.parts, key, _FIELDS)
    try:
        upload = _upload(dataset_id, form)
        once = None if idempotency_key is None else Once(idempotency_key, _fingerprint(request, form))
        kept_id, status = await call.parts.in_thread(_register, call, once, upload)
    except BaseException:
        await call.parts.in_thread(call.parts.artifacts.delete, key)
        raise
    if kept_id != dataset_id:
        await call.parts.in_thread(call.parts.artifacts.delete, key)
    return await _when_read(call, once, kept_id, upload.name, status)


def _upload(dataset_id: str, form: StoredForm) -> Upload:
    try:
        said = DatasetUpload.model_validate(form.fields)
    except ValidationError as error:
        faults = [FieldError(("body", *fault["loc"]), fault["msg"]) for fault in error.errors()]
        raise InvalidRequest(f"{faults[0].loc[-1]}: {faults[0].msg}", errors=faults) from None
    name = said.name or PurePath(form.filename.replace("\\", "/")).stem
    return Upload(dataset_id, name[:200], form.filename, said.target, said.task, form.sha256, form.size_bytes)


def _fingerprint(request: Request, form: StoredForm) -> str:
    """What the form says, whatever its boundary."""
    said = orjson.dumps([form.fields, form.filename, form.sha256], option=orjson.OPT_SORT_KEYS)
    return idempotency.fingerprint(request.method, request.url.path, said)


def _register(call: Call, once: Once | None, upload: Upload) -> tuple[str, int]:
    """The id of the data set, and the status of the answer when it can be used."""
    with call.database.transaction() as tx:
        if once is not None:
            remembered = idempotency.begin(tx, call.project, once)
            if remembered is not None:
                return remembered.body, remembered.status
        dataset_id, new = datasets.register_upload(tx, call.project, upload)
        status = 201 if new else 200
        if once is not None:
            idempotency.remember(tx, call.project, once, status=status, body=dataset_id)
    return dataset_id, status


async def _when_read(call: Call, once: Once | None, dataset_id: str, name: str, status: int) -> Response:
    """The data set once a worker has read it; as it is after half a minute. Raises InvalidDataset.

    Where it has another name than the upload asked for, the answer warns of it.
    """
    deadline = time.monotonic() + _PARSED_WITHIN_S
    with call.parts.waker.listen_for(dataset_id) as wake:
        while True:
            found = await call.parts.in_thread(_status, call, dataset_id)
            if isinstance(found, Dataset):
                return json_answer(encode(_warned(found, name)), status)
            if found.state is DatasetState.FAILED:
                if once is not None:
                    await call.parts.in_thread(_release, call, once)
                raise _fault(found)
            left_s = deadline - time.monotonic()
            if left_s <= 0 or call.parts.stopping:
                return json_answer(encode(found), 202)
            await wake.wait(min(_POLL_S, left_s))


def _warned(found: Dataset, name: str) -> Dataset:
    if found.name == name:
        return found
    warning = f"this file was uploaded before, as {found.name!r}: it is stored under that name, and not as {name!r}"
    return found.model_copy(update={"warnings": [*found.warnings, warning]})


def _status(call: Call, dataset_id: str) -> Dataset | PendingDataset:
    with call.database.reading() as tx:
        return datasets.status(tx, call.project, dataset_id)


def _release(call: Call, once: Once) -> None:
    """What failed had no effect: the same call may be tried again."""
    with call.database.transaction() as tx:
        idempotency.release(tx, call.project, once)


def _fault(found: PendingDataset) -> ForetuneError:
    message = found.error.message if found.error else "the file could not be read"
    code = found.error.code if found.error else None
    return InvalidDataset(message, code=code, errors=[FieldError(("body", FILE_FIELD), message)])
