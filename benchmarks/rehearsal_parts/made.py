"""Seeded tasks that need no data set: development data that anybody can make again.

Three families, which differ in what pays on them: tables whose classes are clusters, tables whose classes a random
network gave out, and smooth images that are bent from prototypes.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.datasets import make_classification

from metalearner.arrays import Array

_CLASSES, _PROTOTYPES, _SHARED = 10, 3, 4
"""Of images: kinds, the prototypes of each, and the fields that all of them grow from."""
_SIDE = 14
"""Widths of the blurs are in parts of an image so wide."""


def clusters(features: int, informative: int, classes: int, seed: int) -> tuple[Array, Array]:
    """2,000 rows whose classes are two clusters each: (rows, F), (rows,)."""
    made: tuple[Array, Array] = make_classification(
        *(2000, features),
        n_informative=informative,
        n_redundant=4,
        n_classes=classes,
        class_sep=1.2,
        random_state=seed,
    )
    return made


def taught(rows: int, features: int, classes: int, seed: int) -> tuple[Array, Array]:
    """Correlated normal features with labels drawn from a random network's softmax: (rows, F), (rows,)."""
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((features, features)) / np.sqrt(features)
    table = generator.standard_normal((rows, features)) @ (np.eye(features) + 0.5 * root)
    hidden = np.tanh(table @ (generator.standard_normal((features, 24)) * 1.5 / np.sqrt(features)))
    logits = hidden @ generator.standard_normal((24, classes)) * 1.5
    noise = 0.5 * generator.gumbel(size=logits.shape)
    return table, (logits - logits.mean(0) + noise).argmax(1)


def images(rows: int, side: int, bend: float, seed: int) -> tuple[Array, Array]:
    """Pixels in [0, 1] of prototypes that are bent by about `bend` fourteenths of their width, under a smooth
    disturbance: (rows, side²), (rows,).
    """
    generator = np.random.default_rng(seed)
    unit = side / _SIDE

    def fields(count: int, blur: float) -> Array:
        """Smooth fields of unit variance: (count, side, side)."""
        rough = generator.standard_normal((count, side, side))
        smooth = gaussian_filter(rough, (0.0, blur * unit, blur * unit))
        centred = smooth - smooth.mean((1, 2), keepdims=True)
        return np.asarray(centred / centred.std((1, 2), keepdims=True))

    kinds = _CLASSES * _PROTOTYPES
    prototypes = fields(_SHARED, 2.2)[generator.integers(_SHARED, size=kinds)] + 0.8 * fields(kinds, 1.6)
    prototypes /= prototypes.std((1, 2), keepdims=True)
    labels = generator.integers(_CLASSES, size=rows)
    chosen = prototypes[labels * _PROTOTYPES + generator.integers(_PROTOTYPES, size=rows)]
    grid = np.mgrid[0:side, 0:side].astype(float)
    bends = np.stack([fields(rows, 3.0), fields(rows, 3.0)], 1) * bend * unit  # (rows, 2, side, side)
    bent = np.array(
        [map_coordinates(one, grid + by, order=1, mode="nearest") for one, by in zip(chosen, bends, strict=True)]
    )
    contrast = 0.7 + 0.6 * generator.random((rows, 1, 1))
    light = 0.25 * generator.random((rows, 1, 1)) + 0.05 * generator.standard_normal(bent.shape)
    pixels = np.clip(0.5 * (bent * contrast + 0.6 * fields(rows, 2.5)) + light, 0.0, 1.0)
    return pixels.reshape(rows, -1), labels
