"""Bodies, read once and no further than allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from foretune.errors import InvalidRequest, TooLarge

_DRAINED_BYTES = 64 * 2**20


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, at most `limit_bytes` long; Starlette's request remembers it. Raises TooLarge."""
    announced = announced_bytes(request)
    refusal = TooLarge(f"the body is larger than {limit_bytes} bytes, the most that is read here")
    if announced is not None and announced > limit_bytes:
        await drain(request)
        raise refusal
    pieces: list[bytes] = []
    size = 0
    async for piece in pieces_of(request):
        size += len(piece)
        if size <= limit_bytes:
            pieces.append(piece)
        elif size > limit_bytes + _DRAINED_BYTES:
            break
    if size > limit_bytes:
        raise refusal
    return b"".join(pieces)


def announced_bytes(request: Request) -> int | None:
    """What the client says its body's length is, None when it sends it in chunks."""
    length = request.headers.get("content-length")
    return int(length) if length is not None and length.isascii() and length.isdigit() else None


async def drain(request: Request) -> None:
    """Takes what the client still sends, within reason: one that is cut off in the middle may never see the answer."""
    if "expect" in request.headers:
        return  # it asks before it sends
    taken = 0
    async for piece in pieces_of(request):
        taken += len(piece)
        if taken > _DRAINED_BYTES:
            return


async def pieces_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises InvalidRequest when the client goes away in the middle."""
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect:
        raise InvalidRequest("the connection ended in the middle of the body") from None
