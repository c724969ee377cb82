"""Bytes to text: UTF-8, with a precise refusal of everything else."""

from __future__ import annotations

import codecs

from foretune.errors import InvalidDataset

_OTHER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def decode_utf8(content: bytes) -> str:
    """The text without its byte order mark. Raises InvalidDataset naming the first wrong byte and its line."""
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            raise InvalidDataset(f"the file is {encoding}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # After a byte order mark the decoder counts from behind it.
        start = error.start + (len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
        line = content.count(b"\n", 0, start) + 1
        raise InvalidDataset(
            f"the file is not UTF-8: byte 0x{content[start]:02x} at offset {start:,} (line {line:,}); save it as UTF-8"
        ) from error
    zero = text.find("\x00")
    if zero >= 0:
        line = text.count("\n", 0, zero) + 1
        raise InvalidDataset(f"line {line:,} holds a zero byte: this is a binary file or UTF-16, not UTF-8 text")
    if not text.strip():
        raise InvalidDataset("the file holds no text: it is empty or only blanks")
    return text
