"""Plain text for language modelling, one token a character."""

from __future__ import annotations

import numpy as np

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Dataset
from workers.datasets.limits import MIN_CHARACTERS, DatasetLimits
from workers.datasets.unicode import decode_utf8

MAX_VOCABULARY = 512
"""With more distinct characters (Chinese, emoji) the tokens are the UTF-8 bytes instead."""


def parse_text(content: bytes, *, name: str, limits: DatasetLimits) -> Dataset:
    """A text data set from UTF-8 bytes; line ends become `\\n`. Raises InvalidDataset."""
    text = decode_utf8(content).replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < MIN_CHARACTERS:
        raise InvalidDataset(
            f"the text has {len(text):,} characters; at least {MIN_CHARACTERS:,} are needed to train on"
        )
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    present = _present(codes)
    notes: tuple[str, ...] = ()
    by_bytes = len(present) > MAX_VOCABULARY
    if by_bytes:
        notes = (
            f"the text has {len(present):,} distinct characters, more than {MAX_VOCABULARY}: "
            "its UTF-8 bytes are the tokens",
        )
        codes = np.frombuffer(text.encode(), dtype=np.uint8)
        present = _present(codes)
    if len(present) < 2:
        raise InvalidDataset(f"the text repeats one character ({chr(int(present[0]))!r}); there is nothing to predict")
    limits.check_cells(len(codes))
    positions = np.zeros(int(present[-1]) + 1, dtype=np.int32)
    positions[present] = np.arange(len(present), dtype=np.int32)
    return Dataset(
        name=name,
        task=Task.LANGUAGE_MODELLING,
        modality="text",
        X=positions[codes],
        y=np.zeros(0, dtype=np.int64),
        vocabulary=tuple(chr(code) for code in present.tolist()),
        tokens="bytes" if by_bytes else "characters",
        warnings=notes,
    )


def _present(
    codes: np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """The distinct codes, ascending, in one pass without sorting the text."""
    seen = np.zeros(int(codes.max()) + 1, dtype=bool)
    seen[codes] = True
    return np.flatnonzero(seen)
