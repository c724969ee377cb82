"""Networks: what can be trained. Workers publish them when they start; the API only repeats what they said."""

from __future__ import annotations

from collections.abc import Sequence

from foretune.errors import NotFound
from foretune.wire.base import Page
from foretune.wire.datasets import Network
from service.db import networks as network_rows
from service.db.session import Transaction
from service.usecases.paging import read_number, write_cursor


def publish(tx: Transaction, networks: Sequence[Network]) -> None:
    """Tells the service what a worker can train. Networks that other workers published stay."""
    network_rows.publish(tx, {network.name: network.model_dump(mode="json") for network in networks})


def all_networks(tx: Transaction) -> list[Network]:
    """By name; empty until a worker has started."""
    return [Network.model_validate(one) for one in network_rows.descriptions(tx)]


def get(tx: Transaction, name: str) -> Network:
    """Raises NotFound, with the names that there are."""
    networks = {network.name: network for network in all_networks(tx)}
    if name not in networks:
        raise NotFound(f"there is no network {name!r}; there are {', '.join(networks) or 'none yet'}")
    return networks[name]


def list_page(tx: Transaction, *, limit: int, cursor: str | None) -> Page[Network]:
    """By name. Raises InvalidRequest for a cursor that no page gave."""
    start = read_number(cursor)
    found = network_rows.descriptions(tx, skip=start, limit=limit + 1)
    items = [Network.model_validate(one) for one in found[:limit]]
    return Page(items=items, next=write_cursor(start + limit) if len(found) > limit else None)
