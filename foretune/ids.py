"""Opaque ids with a prefix. Time-ordered, so that inserting them keeps an index dense."""

from __future__ import annotations

import secrets
import time
from typing import Literal

Prefix = Literal["exp", "tri", "dst", "rec", "prj", "key", "wrk", "ask"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def new_id(prefix: Prefix) -> str:
    """`prefix_` + 22 characters: 50 bits of milliseconds, then 60 random bits."""
    value = (int(time.time() * 1000) << 60) | secrets.randbits(60)
    characters = []
    for _ in range(22):
        characters.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(characters))}"
