"""Which device trains, at which precision, and how it is made to give the same numbers twice."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal, TypeAlias

import scipy.linalg  # noqa: F401 - loads the BLAS whose threads are limited
import torch
from threadpoolctl import threadpool_limits

from foretune.allocator import keep_freed_memory

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

_WORTH_CASTING_FLOPS = 2e9
"""Below this much arithmetic in an update a device waits for launches, and casts only add to them."""
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device() -> torch.device:
    """The fastest device there is: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def configure(device: torch.device) -> None:
    """Settings of the whole process: one CPU thread, memory kept for the next step, deterministic kernels on CUDA.

    One thread because a worker process has one core of its own: two threads on a busy two-core machine are a
    hundred times slower than one.
    """
    torch.set_num_threads(1)
    _use_one_blas_thread()
    keep_freed_memory()
    if device.type == "cuda":
        # cuBLAS reads it when it is first used; without it its split reductions may differ between runs.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


@cache
def _use_one_blas_thread() -> None:
    """SciPy's BLAS is another one than torch's, and compiled perceptrons multiply by it."""
    threadpool_limits(limits=1, user_api="blas")


def choose_precision(device: torch.device, flops_per_update: float) -> Precision:
    """Mixed precision where it helps: on CUDA with matrix units, for updates large enough to feel it."""
    if device.type != "cuda" or flops_per_update < _WORTH_CASTING_FLOPS:
        return "float32"
    major, _ = torch.cuda.get_device_capability(device)
    if major >= 8:
        return "bfloat16"
    return "float16" if major == 7 else "float32"


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 (AVX512_BF16, AMX), and torch the kernels."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which forward passes run at `precision`; enter a new one each time.

    A CPU that would have to emulate bfloat16 stays at float32, which is as good and much faster.
    """
    emulated = device.type == "cpu" and precision == "bfloat16" and not multiplies_bfloat16()
    if precision == "float32" or emulated:
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def fits(device: torch.device, size_bytes: int) -> bool:
    """Whether data of that size may stay on the device: at most half of what is free now."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size_bytes <= free // 2


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch raised because the device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def free_cache(device: torch.device) -> None:
    """Gives memory that torch holds in reserve back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
