"""Server-Sent Events, parsed as they arrive (WHATWG HTML, section 9.2.6).

Chunks may end anywhere, also inside a character or between CR and LF. An event that is cut off by the end of the
stream is never delivered, so that a resumed stream can deliver it whole.
"""

from __future__ import annotations

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Message:
    """One dispatched event; `last_id` is the last id seen so far, `event` is "message" when the sender named none."""

    last_id: str
    event: str
    data: str


class Parser:
    """Feed it chunks, get the messages that they complete."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        """What the server asks to wait before a reconnection, if it did."""
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._last_id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """Messages completed by `chunk`, oldest first."""
        messages: list[Message] = []
        position = 0
        while position < len(chunk):
            if self._after_cr:
                self._after_cr = False
                if chunk[position] == 0x0A:
                    position += 1
                    continue
            end, is_cr = _line_end(chunk, position)
            if end < 0:
                self._line += chunk[position:]
                break
            self._line += chunk[position:end]
            self._after_cr = is_cr
            position = end + 1
            message = self._take_line()
            if message is not None:
                messages.append(message)
        return messages

    def _take_line(self) -> Message | None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\x00" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Message | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return Message(self._last_id, event or "message", "\n".join(data))


def _line_end(chunk: bytes, start: int) -> tuple[int, bool]:
    """Where the line that starts at `start` ends, -1 if not in this chunk, and whether a CR ends it."""
    newline = chunk.find(b"\n", start)
    carriage = chunk.find(b"\r", start, newline if newline >= 0 else len(chunk))
    return (carriage, True) if carriage >= 0 else (newline, False)
