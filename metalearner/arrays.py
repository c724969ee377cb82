"""The array types that signatures name, and ranks."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.object_]
Index: TypeAlias = npt.NDArray[np.intp]


def ranks(values: Array) -> Array:  # (…, n) -> (…, n)
    """The rank of each value among the last axis, from 1; equal ones share the mean of theirs. No NaN."""
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    ascending = np.sort(flat, axis=1)
    found = [
        line.searchsorted(row, "left") + line.searchsorted(row, "right")
        for line, row in zip(ascending, flat, strict=True)
    ]
    return (np.array(found).reshape(values.shape) + 1) / 2
