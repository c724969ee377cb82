"""A trial's own random streams, each a pure function of its seed and of a position.

There is no generator whose history must be saved: the noise of update k and the data order of epoch e follow from
the seed and from k and e, so a trial draws the same numbers alone, beside others and after a resume.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_global_state = threading.RLock()


@dataclass(frozen=True)
class Streams:
    """Three independent 64-bit stream numbers; `splitmix.at` gives the seed at a position of one of them."""

    initialisation: int
    order: int
    noise: int


def streams(seed: int) -> Streams:
    """The streams of a trial. SHA-256, so that neighbouring seeds have nothing in common."""
    initialisation, order, noise = (
        int.from_bytes(hashlib.sha256(f"foretune/{name}/{seed}".encode()).digest()[:8], "little")
        for name in ("initialisation", "order", "noise")
    )
    return Streams(initialisation, order, noise)


def generator(seed: int) -> torch.Generator:
    """A CPU generator at the start of the stream `seed`; the same draws on every device kind."""
    return torch.Generator().manual_seed(_signed(seed))


def seed_global(seed: int, device: torch.device) -> None:
    """Puts torch's global generators for the CPU and for `device` at the start of the stream `seed`.

    For networks that draw from them (`torch.nn.Dropout`, initialisation). `torch.manual_seed` does the same for
    every device there could be, which takes a hundred times as long.
    """
    torch.default_generator.manual_seed(_signed(seed))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(_signed(seed))
    elif device.type == "mps":
        torch.mps.manual_seed(_signed(seed))


@contextmanager
def kept_global_state() -> Iterator[None]:
    """Restores torch's global CPU generator afterwards, so that the engine changes nobody else's draws.

    All threads share the generator: one engine at a time has it.
    """
    with _global_state:
        state = torch.default_generator.get_state()
        try:
            yield
        finally:
            torch.default_generator.set_state(state)


def _signed(seed: int) -> int:
    return seed - (1 << 64) if seed >= 1 << 63 else seed
