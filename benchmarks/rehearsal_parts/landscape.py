"""A landscape through real learning curves, so that a whole job takes seconds.

The logarithm of the error, beyond 1.6 times that of good settings nearly level, is reduced to six principal
components, each a Gaussian process over the settings. A trial's curve is their mean, half of the noise that they found,
and what the components leave of the curve of a setting about as good: so it is as uneven as a real one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from benchmarks.rehearsal_parts.curves import Curve
from benchmarks.tuning_task import NETWORK
from foretune.spaces import Configuration
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from workers.networks import get_network

_COMPONENTS = 6
_NOISE = 0.5
"""With it repeats of the default scatter as real ones do (.0029 and .0028 on 15,000 images of clothes)."""
_BAD, _LEVEL = 1.6, 0.07
_LEAST_ERROR = 0.002
_GOOD = 0.3
"""So many of the settings, the worst, do not shape the components."""
_LIKE = 25
_FAR = 6.0


class Landscape:
    """Draws the curve of a trial of any setting."""

    def __init__(self, curves: Sequence[Curve], rows: int) -> None:
        """`rows`: of the validation part; accuracies are multiples of one of them."""
        self._encoding, self._rows = Encoding.of(get_network(NETWORK).space), rows
        values = np.array([one.values for one in curves])  # (n, R)
        self._limit = np.log(_BAD * np.quantile(np.clip(1.0 - values, _LEAST_ERROR, 1.0), 0.05, axis=0))
        heights = self._heights(values)
        good = values.max(1) >= np.quantile(values.max(1), _GOOD)
        self._mean = heights[good].mean(0)
        self._components = np.linalg.svd(heights[good] - self._mean, full_matrices=False)[2][:_COMPONENTS]
        scores = (heights - self._mean) @ self._components.T  # (n, K)
        self._left = (heights - self._mean - scores @ self._components)[good]
        self._levels = values.max(1)[good]
        points = self._encoding.features(self._encoding.encode_all([one.configuration for one in curves]))
        self._processes = [_process(points, column, column[good]) for column in scores.T]

    def curve(self, configuration: Configuration, generator: np.random.Generator) -> Array:
        """The validation accuracy after each epoch of a trial: (R,)."""
        point = self._encoding.features(self._encoding.encode_all([configuration]))
        scores = [
            float(process.predict(point)[0]) + _NOISE * deviation * generator.standard_normal()
            for process, deviation in self._processes
        ]
        height = self._mean + np.array(scores) @ self._components
        alike = np.argsort(np.abs(self._levels - self._values(height).max()))[:_LIKE]
        drawn = self._values(height + self._left[generator.choice(alike)])
        return np.asarray(np.round(drawn * self._rows) / self._rows)

    def _heights(self, values: Array) -> Array:
        errors = np.log(np.clip(1.0 - values, _LEAST_ERROR, 1.0))
        return -np.where(errors < self._limit, errors, self._limit + _LEVEL * (errors - self._limit))

    def _values(self, heights: Array) -> Array:
        errors = np.where(-heights < self._limit, -heights, self._limit + (-heights - self._limit) / _LEVEL)
        return np.asarray(np.clip(1.0 - np.exp(errors), 0.0, 1.0))


def _process(points: Array, scores: Array, good: Array) -> tuple[GaussianProcessRegressor, float]:
    """The process through the scores, and the deviation of the noise that it found."""
    middle, spread = float(np.median(good)), float(good.std())
    scores = middle + spread * np.clip((scores - middle) / spread, -_FAR, _FAR)
    lengths = Matern(np.full(points.shape[1], 2.0), (0.5, 50.0), nu=2.5)
    kernel = ConstantKernel(1.0) * lengths + WhiteKernel(0.1, (1e-4, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound: the parameter does not matter
        process = GaussianProcessRegressor(kernel, normalize_y=True).fit(points, scores)
    noise = process.kernel_.k2.noise_level
    return process, float(np.sqrt(noise) * scores.std())
