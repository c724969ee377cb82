"""Answers that are files: read piece by piece, in threads, and closed whatever happens to the client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from starlette.responses import Response, StreamingResponse

from service.artifacts import ArtifactStore

_PIECE_BYTES = 1 << 18


def stream_file(artifacts: ArtifactStore, key: str, name: str) -> Response:
    """The artifact as an attachment. Raises NotFound before anything is sent."""
    with ExitStack() as held:
        file = held.enter_context(artifacts.open(key))
        headers = {"Content-Disposition": attachment(name), "Content-Length": str(artifacts.size_bytes(key))}
        pieces = _pieces(file, held.pop_all())
    return StreamingResponse(pieces, headers=headers, media_type="application/octet-stream")


def attachment(name: str) -> str:
    """Tells a browser to save the answer under a plain name."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return f'attachment; filename="{plain}"'


def _pieces(file: BinaryIO, held: ExitStack) -> Iterator[bytes]:
    with held:
        while piece := file.read(_PIECE_BYTES):
            yield piece
