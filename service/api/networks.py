"""Networks over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from foretune.wire.base import Page
from foretune.wire.datasets import Network
from service.api.call import ThisCall
from service.api.documented import problems
from service.api.parameters import FIRST_PAGE, Cursor, Limit
from service.api.strict import StrictRoute
from service.usecases import networks

router = APIRouter(prefix="/v1/networks", tags=["networks"], route_class=StrictRoute)


@router.get("", response_model=Page[Network])
async def list_networks(call: ThisCall, limit: Limit = FIRST_PAGE, cursor: Cursor = None) -> Response:
    """What the workers can train, each with its default search space."""
    return await call.read(lambda tx: networks.list_page(tx, limit=limit, cursor=cursor))


@router.get("/{name}", response_model=Network, responses=problems(404))
async def get_network(call: ThisCall, name: Annotated[str, Path(examples=["mlp"])]) -> Response:
    """One network."""
    return await call.read(lambda tx: networks.get(tx, name))
