"""A few rows of a data set as the encoder of tasks reads them, and how they travel among the features of a task.

A sample is a set of elements (E, N): each one row (of a text: one window of tokens), described by N numbers that mean
the same in every data set of its kind, whatever its columns are. It is kept as one word: base64 of signed bytes, each
1/24 of a unit, so that it is small, and equal wherever it is computed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import numpy as np

from metalearner.arrays import Array

FEATURE = "sample"
"""The name under which features of a task hold it."""
ELEMENTS = 64
NUMBERS = 8
_STEP = 1.0 / 24.0
_LARGEST = 127


def encode(elements: Array) -> str:
    """Elements (E, N) as a word. What is no number becomes 0; what lies beyond ±5.29 its end."""
    steps = np.nan_to_num(elements / _STEP, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
    return base64.b64encode(np.clip(np.rint(steps), -_LARGEST, _LARGEST).astype(np.int8).tobytes()).decode()


def decode(features: Mapping[str, float | str]) -> Array | None:
    """The elements (E, N) that features hold; None where there are none, or what is there is no sample."""
    word = features.get(FEATURE)
    if not isinstance(word, str):
        return None
    try:
        steps = np.frombuffer(base64.b64decode(word, validate=True), dtype=np.int8)
    except (binascii.Error, ValueError):
        return None
    if not len(steps) or len(steps) % NUMBERS or len(steps) > ELEMENTS * NUMBERS:
        return None
    return steps.reshape(-1, NUMBERS).astype(np.float64) * _STEP
