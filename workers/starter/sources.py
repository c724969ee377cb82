"""Real data at hand without a download: scikit-learn's sets, Debian's Fashion-MNIST, Python's reference and code."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foretune.wire.datasets import Task
from workers.datasets.builtin import BUILTIN_NAMES, load_builtin
from workers.datasets.dataset import Dataset
from workers.datasets.limits import DatasetLimits
from workers.datasets.text import parse_text

_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts it (MIT licence)."""
_FASHION_ROWS = 2000
_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
_TEXT_CHARACTERS = 8_000
_IDX_IMAGES, _IDX_LABELS = 16, 8
"""Bytes before the data of an IDX file."""


def sources() -> Iterator[Dataset]:
    """The data sets there are on this machine, always in the same order."""
    for name in BUILTIN_NAMES:
        yield load_builtin(name)
    if (_FASHION / "train-images-idx3-ubyte.gz").exists():
        yield _fashion()
    yield from _texts()


def _fashion() -> Dataset:
    """The first images of the training part, at half their resolution: (2000, 1, 14, 14)."""
    images = gzip.decompress((_FASHION / "train-images-idx3-ubyte.gz").read_bytes())[_IDX_IMAGES:]
    labels = gzip.decompress((_FASHION / "train-labels-idx1-ubyte.gz").read_bytes())[_IDX_LABELS:]
    pixels = np.frombuffer(images[: _FASHION_ROWS * 784], dtype=np.uint8).reshape(-1, 1, 14, 2, 14, 2)
    return Dataset(
        name="fashion",
        task=Task.CLASSIFICATION,
        modality="image",
        X=(pixels.mean((3, 5)) / 255.0).astype(np.float32),
        y=np.frombuffer(labels[:_FASHION_ROWS], dtype=np.uint8).astype(np.int64),
        target_name="kind",
        class_names=_CLASSES,
    )


def _texts() -> Iterator[Dataset]:
    """Prose of Python's reference, and Python code (both PSF licence)."""
    import argparse
    import pydoc_data.topics

    prose = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    code = Path(argparse.__file__).read_text(encoding="utf-8")
    for name, text in (("reference", prose), ("code", code)):
        start = len(text) // 3
        yield parse_text(
            text[start : start + _TEXT_CHARACTERS].encode("ascii", "replace"), name=name, limits=DatasetLimits()
        )
