"""Bodies, read once and no further than allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request

from foretune.errors import InvalidRequest, TooLarge

_DRAINED_BYTES = 64 * 2**20


class Body:
    """The body of a request while it arrives."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    @property
    def announced_bytes(self) -> int | None:
        """What the client says its length is, None when it sends it in chunks."""
        length = self._request.headers.get("content-length")
        return int(length) if length is not None and length.isascii() and length.isdigit() else None

    async def pieces(self) -> AsyncIterator[bytes]:
        """What has not been taken yet. Raises InvalidRequest when the client goes away in the middle."""
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise InvalidRequest("the connection ended in the middle of the body")
            self._ended = not message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece

    async def whole(self, limit_bytes: int) -> bytes:
        """All of it, at most `limit_bytes` long. Raises TooLarge."""
        refusal = TooLarge(f"the body is larger than {limit_bytes} bytes, the most that is read here")
        announced = self.announced_bytes
        if announced is not None and announced > limit_bytes:
            await self.drain()
            raise refusal
        pieces: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            size += len(piece)
            if size > limit_bytes:
                await self.drain()
                raise refusal
            pieces.append(piece)
        return b"".join(pieces)

    async def drain(self) -> None:
        """Takes what the client still sends, within reason: one that is cut off in the middle may never read an
        answer."""
        if "expect" in self._request.headers:
            return  # It asks before it sends.
        taken = 0
        try:
            async for piece in self.pieces():
                taken += len(piece)
                if taken > _DRAINED_BYTES:
                    return
        except InvalidRequest:
            return
