"""How a data set can be read: an image is also a table of its pixels and a sequence of its rows.

Axes: N rows, F features, C channels, H height, W width, T steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.datasets.dataset import Dataset, Modality

_VIEWS: dict[Modality, tuple[Modality, ...]] = {
    "tabular": ("tabular",),
    "image": ("image", "tabular", "sequence"),
    "sequence": ("sequence", "tabular"),
    "text": ("text",),
}


def views(dataset: Dataset) -> tuple[Modality, ...]:
    """The views that `prepare` can give of this data set, its own modality first."""
    return _VIEWS[dataset.modality]


def flatten(X: NDArray[np.float32]) -> NDArray[np.float32]:  # (N, …) -> (N, F)
    """Every row as one line of numbers."""
    return X.reshape(len(X), -1)


def image_rows(images: NDArray[np.float32]) -> NDArray[np.float32]:  # (N, C, H, W) -> (N, H, C * W)
    """Every image as a sequence of its pixel rows, from the top, channels side by side."""
    count, channels, height, width = images.shape
    return images.transpose(0, 2, 1, 3).reshape(count, height, channels * width)
