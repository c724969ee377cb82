"""Files from the service, written piece by piece and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import httpx

from foretune.client.transport import Transport
from foretune.errors import ClientError, ForetuneError, TooManyRequests, Unavailable

_READ_TIMEOUT_S = 120.0


def save(transport: Transport, path: str, target: Path, params: Mapping[str, object] | None = None) -> Path:
    """GETs `path` into `target`, which appears only when it is complete; an existing file is replaced.

    Raises ClientError when the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise ClientError(f"{target} cannot be written: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            fetch(transport, path, file, params)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(target)
    except OSError as error:
        raise ClientError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
    return target


def fetch(transport: Transport, path: str, file: IO[bytes], params: Mapping[str, object] | None = None) -> None:
    """GETs `path` into `file`, which must be seekable: a broken download begins anew."""
    started, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        file.seek(0)
        file.truncate()
        try:
            with transport.stream(
                path, params=params, headers={"accept": "*/*"}, read_timeout_s=_READ_TIMEOUT_S
            ) as answer:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            file.flush()
            return
        except httpx.TransportError as error:
            failure: ForetuneError = transport.unreachable(error)
        except (Unavailable, TooManyRequests) as error:
            failure = error
        wait_s = transport.retry.wait_s(attempt)
        if time.monotonic() - started + wait_s > transport.patience_s(None):
            raise failure
        time.sleep(wait_s)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
