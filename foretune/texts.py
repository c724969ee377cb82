"""Text that everyone can keep, and text that everyone can be shown.

Postgres knows no U+0000, UTF-8 no lone surrogates. Control characters move a terminal's cursor or turn the direction of
what follows, and make one name look like another.
"""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what steers instead of being shown: controls, formats, surrogates, ends of lines."""


def storable(text: str) -> str:
    """The same text. Raises ValueError when it cannot be kept."""
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


def nameable(text: str) -> str:
    """The same text. Raises ValueError when it would not do for a name."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without spaces at its ends")
    return text


def shown(text: str) -> str:
    """The text for a terminal, without what would steer it; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(one for one in text if one in "\n\t" or unicodedata.category(one) not in _UNSEEN)


def is_unseen(character: str) -> bool:
    """Whether it steers a terminal instead of being shown; ends of lines do."""
    return unicodedata.category(character) in _UNSEEN
