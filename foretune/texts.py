"""Text that everyone can keep: Postgres knows no U+0000, UTF-8 no lone surrogates."""

from __future__ import annotations


def storable(text: str) -> str:
    """The same text. Raises ValueError when it cannot be kept."""
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text
