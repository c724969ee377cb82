"""What a process holds for good is not looked through again and again.

A full collection visits every object there is: with torch loaded, some 100 ms in the middle of somebody's answer. What
is there once a process serves stays there, so collections need not look at it.
"""

from __future__ import annotations

import gc


def exempt_what_is_there() -> None:
    """Collects once, and exempts what is left from later collections. Call it when a process is warm."""
    gc.collect()
    gc.freeze()
