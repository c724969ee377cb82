"""Keys of the caller's project over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from foretune.wire.base import Page
from foretune.wire.service import Key, KeyRequest, NewKey
from service.api.call import OnceCall, ThisCall
from service.api.documented import problems
from service.api.parameters import FIRST_PAGE, Cursor, Limit
from service.api.strict import StrictRoute
from service.db.session import Transaction
from service.usecases import keys

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)


@router.get("", response_model=Page[Key])
async def list_keys(call: ThisCall, limit: Limit = FIRST_PAGE, cursor: Cursor = None) -> Response:
    """The newest first; revoked ones too."""
    return await call.read(lambda tx: keys.list_page(tx, call.project, limit=limit, cursor=cursor))


@router.post("", status_code=201, response_model=NewKey, responses=problems(409))
async def create_key(call: OnceCall, request: KeyRequest) -> Response:
    """Makes a key. This answer is the only place where it is ever shown."""
    return await call.seal(lambda tx: keys.create_key(tx, call.project, request), 201)


@router.delete("/{key_id}", status_code=204, response_class=Response, responses=problems(404, 409))
async def revoke_key(
    request: Request, call: ThisCall, key_id: Annotated[str, Path(examples=["key_7d2k0m3v5x8z1b4c6f9h0j"])]
) -> Response:
    """Revokes a key; other processes may believe it for two seconds more. A key cannot revoke itself."""

    def revoke(tx: Transaction) -> list[str]:
        keys.revoke_key(tx, call.project, key_id, used_now=call.presented.caller.key_id)
        return []

    answer = await call.delete(revoke)
    request.app.state.trusted_keys.forget()
    return answer
