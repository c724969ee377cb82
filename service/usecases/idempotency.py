"""The same call twice has one effect: the first answer is kept for a day, in the transaction of its effect.

    remembered = begin(tx, project, once)      None: this call is the first, go on
    ...the effect...
    remember(tx, project, once, status=201, body=...)

Two calls at the same time take turns: the second waits in `begin` until the first commits, or takes over when the first
rolls back. What failed is not remembered: it had no effect.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from foretune.errors import IdempotencyConflict
from service.db import idempotency as idempotency_rows
from service.db.idempotency import StoredAnswer
from service.db.session import Transaction

_KEPT = timedelta(hours=24)
_NONCE_BYTES = 16


@dataclass(frozen=True)
class Once:
    """A client's Idempotency-Key, and the hash of what it was sent with."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Remembered:
    """The first answer. `status` 0: the first call has not answered yet."""

    status: int
    body: str


def fingerprint(method: str, path: str, body: bytes) -> str:
    """What makes two calls the same."""
    return hashlib.sha256(b"\0".join((method.encode(), path.encode("utf-8", "replace"), body))).hexdigest()


def begin(tx: Transaction, project: str, once: Once) -> Remembered | None:
    """The first answer, or None when this is the first call: then it must `remember` its answer.

    Raises IdempotencyConflict when the key came with another request.
    """
    if idempotency_rows.claim(tx, project, once.key, once.fingerprint):
        return None
    idempotency_rows.delete_one_if_older(tx, project, once.key, _KEPT)
    if idempotency_rows.claim(tx, project, once.key, once.fingerprint):
        return None
    return _matching(idempotency_rows.find(tx, project, once.key), once)


def recall(tx: Transaction, project: str, once: Once) -> Remembered | None:
    """The first answer, if there is one by now. Raises IdempotencyConflict as `begin` does."""
    stored = idempotency_rows.find(tx, project, once.key)
    if stored is None or stored.status == 0:
        return None
    return _matching(stored, once)


def remember(tx: Transaction, project: str, once: Once, *, status: int, body: str) -> None:
    """Keeps the answer beside its effect."""
    idempotency_rows.answer(tx, project, once.key, status=status, body=body)


def _matching(stored: StoredAnswer | None, once: Once) -> Remembered:
    if stored is None or not hmac.compare_digest(stored.fingerprint, once.fingerprint):
        raise IdempotencyConflict(
            f"Idempotency-Key {once.key!r} was used with another request; choose a new key for a new request"
        )
    return Remembered(stored.status, stored.body)


def release(tx: Transaction, project: str, once: Once) -> None:
    """Forgets the key: for effects with transactions of their own, when they failed."""
    idempotency_rows.release(tx, project, once.key)


def seal(text: str, secret: str) -> str:
    """`text`, readable only by whoever has `secret`: for answers that hold a key.

    A stream of SHA-256 HMACs under a key derived from `secret` and a fresh nonce, and a tag over it all.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = nonce + _xor(text.encode(), secret, nonce)
    return base64.b64encode(_tag(sealed, secret) + sealed).decode()


def unseal(sealed: str, secret: str) -> str | None:
    """What `seal` was given; None with another secret."""
    try:
        raw = base64.b64decode(sealed, validate=True)
    except binascii.Error:
        return None
    tag, body = raw[:32], raw[32:]
    if not hmac.compare_digest(tag, _tag(body, secret)):
        return None
    return _xor(body[_NONCE_BYTES:], secret, body[:_NONCE_BYTES]).decode()


def _tag(data: bytes, secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"tag" + data, "sha256")


def _xor(data: bytes, secret: str, nonce: bytes) -> bytes:
    blocks = (
        hmac.digest(secret.encode(), b"stream" + nonce + n.to_bytes(8), "sha256") for n in range(len(data) // 32 + 1)
    )
    return bytes(left ^ right for left, right in zip(data, b"".join(blocks), strict=False))
