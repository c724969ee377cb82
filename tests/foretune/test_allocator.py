"""Freed memory is kept: what one array has left, the next one takes, and nothing is mapped anew."""

import ctypes
import subprocess
import sys

import pytest

from foretune.allocator import keep_freed_memory

_PROGRAM = """
import ctypes, sys
from foretune.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
block = libc.malloc(16 << 20)
libc.free(block)
bounds = next(line.split()[0] for line in open("/proc/self/maps") if "[heap]" in line)
first, last = (int(one, 16) for one in bounds.split("-"))
print(first <= block < last)
"""


def _glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.mark.skipif(not _glibc(), reason="only glibc has these options")
@pytest.mark.parametrize("how", ["keep", "leave"])
def test_a_large_block_stays_with_the_process(how):
    said = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(how == "keep")


def test_it_may_be_called_again_and_anywhere():
    assert keep_freed_memory() == _glibc()
    assert keep_freed_memory() == _glibc()
