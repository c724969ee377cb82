"""The C library's allocator, for processes that compute: freed memory is kept for the next array.

glibc gives large blocks back to the kernel as soon as they are freed, and faults the next ones in page by page: arrays
of a few hundred kilobytes that live for one operation cost more in page faults than in arithmetic (docs/LOG.md).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The names that mallopt(3) gives them."""
_KEPT_BYTES = 256 << 20
_LARGEST_KEPT_BYTES = 32 << 20
"""The most that glibc takes as a threshold; larger blocks come from the kernel and go back to it."""


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Lets this process, and those that it forks, keep up to 256 MiB of freed memory a heap; False where the C library
    knows no such thing."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(set_option(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(set_option(_TRIM_THRESHOLD, _KEPT_BYTES))
