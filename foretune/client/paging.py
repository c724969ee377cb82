"""Lists of any length, fetched a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import BaseModel

from foretune.client.transport import Transport
from foretune.wire.base import Page

Item = TypeVar("Item", bound=BaseModel)
_PAGE_SIZE = 100


def iterate(
    transport: Transport,
    path: str,
    page_model: type[Page[Item]],
    params: Mapping[str, object] | None = None,
    limit: int | None = None,
) -> Iterator[Item]:
    """The items of a paged list in the service's order, at most `limit` of them."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = _PAGE_SIZE if left is None else min(left, _PAGE_SIZE)
        reply = transport.call("GET", path, params={**(params or {}), "limit": size, "cursor": cursor})
        page = reply.as_model(page_model)
        yield from page.items if left is None else page.items[:left]
        cursor = page.next
        if cursor is None:
            return
        if left is not None:
            left -= len(page.items)
