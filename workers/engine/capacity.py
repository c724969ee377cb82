"""How many trials an engine should hold at a time."""

from __future__ import annotations

import torch

from workers.engine.signature import signature_of
from workers.engine.slot import Slot

FIRST = 16
"""Before anything is known."""
LARGEST = 256
_SMALL_WEIGHTS = 100_000
_HEADROOM = 0.3
"""The share of free memory that stays free."""


def capacity_on_cpu(first: Slot) -> int:
    """The number of slots for trials like the first one.

    Stacking gains most of what there is with 16 small members, and with a few large ones; every further trial at a
    time is one proposed with less knowledge. What only the plain loop can train gains nothing at all from company.
    """
    if signature_of(first) is None:
        return 4
    return 16 if first.flat.layout.size <= _SMALL_WEIGHTS else 8


def measured_capacity(held: int, used_bytes: int, free_bytes: int) -> int:
    """The number of slots, when `held` trials needed `used_bytes` at their peak beyond the data."""
    per_slot = max(1, used_bytes // max(1, held))
    return max(1, held, min(LARGEST, held + int((1.0 - _HEADROOM) * free_bytes) // per_slot))


class MemoryGauge:
    """Measures on CUDA what trials need. Begin it when the data are on the device and nothing is trained."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    def capacity(self, held: int) -> int:
        """How many slots there may be, after `held` trials have trained for a while."""
        used = torch.cuda.max_memory_allocated(self._device) - self._before
        free, _ = torch.cuda.mem_get_info(self._device)
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return measured_capacity(held, used, free + idle)
