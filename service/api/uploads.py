"""A form with one file, stored while it arrives: never whole in memory, and kept whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from foretune.errors import FieldError, ForetuneError, InvalidRequest, TooLarge
from service.api.limits import Body
from service.api.parts import Parts
from service.api.problems import UnsupportedMediaType

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

    from service.artifacts import Writer

_OVERHEAD_BYTES = 1 << 20
"""Fields, headers and boundaries."""
_BLOCK_BYTES = 1 << 20
_LONGEST_FIELD_BYTES = 4096
_LONGEST_HEADER_BYTES = 8192
_LONGEST_FILENAME = 255
FILE_FIELD = "file"


@dataclass(frozen=True)
class StoredForm:
    """What arrived: the text fields, and what is known of the file, which lies in the artifact store."""

    fields: dict[str, str]
    filename: str
    sha256: str
    size_bytes: int


async def store_form(request: Request, parts: Parts, key: str, known: frozenset[str]) -> StoredForm:
    """Reads a multipart form; its file goes under `key`, its other fields must be among `known`.

    Raises InvalidRequest, UnsupportedMediaType, TooLarge, StorageFull; then nothing is kept.
    """
    limit = parts.settings.foretune_max_upload_bytes
    form, body = _Form(_boundary(request), known, limit), Body(request)
    try:
        announced = body.announced_bytes
        if announced is not None and announced > limit + _OVERHEAD_BYTES:
            raise form.too_large()
        async with _writing(parts, key) as file:
            await _receive(body, parts, form, file)
    except ForetuneError:
        await body.drain()
        raise
    return StoredForm(form.fields, form.filename or "", form.hash.hexdigest(), form.size_bytes)


async def _receive(body: Body, parts: Parts, form: _Form, file: Writer) -> None:
    total = 0
    async for piece in body.pieces():
        total += len(piece)
        if total > form.limit_bytes + _OVERHEAD_BYTES:
            raise form.too_large()
        form.feed(piece)
        if len(form.block) >= _BLOCK_BYTES:
            await parts.in_thread(_store, form, file)
    form.finish()
    await parts.in_thread(_store, form, file)


def _store(form: _Form, file: Writer) -> None:
    block = bytes(form.block)
    form.block.clear()
    form.hash.update(block)
    file.write(block)


@asynccontextmanager
async def _writing(parts: Parts, key: str) -> AsyncIterator[Writer]:
    """`ArtifactStore.writer`, entered and left in threads."""
    manager = parts.artifacts.writer(key)
    file = await parts.in_thread(manager.__enter__)
    try:
        yield file
    except BaseException as error:
        # Shielded: also when this call is canceled, nothing must stay behind.
        await asyncio.shield(parts.in_thread(manager.__exit__, type(error), error, error.__traceback__))
        raise
    await parts.in_thread(manager.__exit__, None, None, None)


@dataclass
class _Part:
    """One part of the form while it is read."""

    disposition: bytes = b""
    name: str = ""
    is_file: bool = False
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """Turns the parser's callbacks into fields and a block of file content that waits to be stored."""

    def __init__(self, boundary: bytes, known: frozenset[str], limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self.hash = hashlib.sha256()
        self.block = bytearray()
        self._known = known
        self._part = _Part()
        self._header_name, self._header_value = bytearray(), bytearray()
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"the form is malformed: {error}") from None

    def finish(self) -> None:
        if not self._ended:
            raise InvalidRequest("the form is malformed: it ends without its closing boundary")
        if self.filename is None:
            _refuse(FILE_FIELD, "is missing: send the data set's file in it")
        if self.size_bytes == 0:
            _refuse(FILE_FIELD, "is empty")

    def too_large(self) -> TooLarge:
        return TooLarge(f"the file is larger than {self.limit_bytes} bytes, the most that is taken; nothing was kept")

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > _LONGEST_HEADER_BYTES:
            raise InvalidRequest("the form is malformed: a header of a part is too long")

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._part.disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._part.disposition)
        if kind != b"form-data" or b"name" not in options:
            raise InvalidRequest("the form is malformed: a part has no `Content-Disposition: form-data; name=…`")
        name = _text(options[b"name"])
        self._part.name = name
        if name == FILE_FIELD:
            if self.filename is not None:
                _refuse(name, "is given twice: upload one file at a time")
            if not options.get(b"filename"):
                _refuse(name, "must be a file with a name")
            self._part.is_file = True
            self.filename = _text(options[b"filename"])[-_LONGEST_FILENAME:]
            if "\x00" in self.filename:
                _refuse(name, "has a name with the character U+0000")
            return
        if name not in self._known:
            _refuse(
                name[:100], f"is not a field of this form; there are {FILE_FIELD}, {', '.join(sorted(self._known))}"
            )
        if name in self.fields:
            _refuse(name, "is given twice")
        if b"filename" in options:
            _refuse(name, "must be text, not a file")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.size_bytes += end - start
            if self.size_bytes > self.limit_bytes:
                raise self.too_large()
            self.block += data[start:end]
        else:
            self._part.value += data[start:end]
            if len(self._part.value) > _LONGEST_FIELD_BYTES:
                _refuse(self._part.name, f"is longer than {_LONGEST_FIELD_BYTES} bytes")

    def _on_part_end(self) -> None:
        if not self._part.is_file:
            try:
                self.fields[self._part.name] = self._part.value.decode()
            except UnicodeDecodeError:
                _refuse(self._part.name, "must be UTF-8")

    def _on_end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    if kind != b"multipart/form-data":
        raise UnsupportedMediaType(
            f"this endpoint reads multipart/form-data, not {given.partition(';')[0] or 'a body without a Content-Type'}"
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise InvalidRequest("the Content-Type of a form must name a boundary of 1 to 200 characters")
    return boundary


def _text(data: bytes) -> str:
    """A name in a header, which says nothing of its encoding: UTF-8 nowadays, latin-1 before."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _refuse(name: str, message: str) -> NoReturn:
    raise InvalidRequest(f"{name} {message}", errors=[FieldError(("body", name), message)])
