"""A lean Gaussian process: Matérn-5/2 with one length scale a dimension, fitted by its analytic gradient.

Symbols: n observations, P feature columns, G length scales (one a dimension of the space), m candidates.
    r²(a, b) = sum_p (a_p - b_p)² / l_{g(p)}²
    k(r) = s (1 + √5 r + 5r²/3) exp(-√5 r),   dk/d(r²) = -(5/6) s (1 + √5 r) exp(-√5 r)
    K = k + c 11ᵀ + b BBᵀ + v I                c: a flat prior of the mean;  v: noise and jitter
    B: z and its second Legendre polynomial (3z² - 1)/2 for each column, z = 2a - 1, over √G;  b: the trend's variance,
       0 unless asked for (Rasmussen & Williams 2006, section 2.7: a mean of basis functions with a normal prior)
    log p(y) = -½ yᵀK⁻¹y - ½ log|K|,  d/dθ = ½ tr((ααᵀ - K⁻¹) dK/dθ),  α = K⁻¹y
Length scales have the dimension-scaled log-normal prior of Hvarfner et al. (2024, arXiv 2402.02229).
No torch: importing it and its cost a call are more than a whole proposal here takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dtrtri
from scipy.optimize import minimize

from metalearner.arrays import Array, Index

_SQRT5 = math.sqrt(5.0)
JITTER = 1e-6
_DIFFERENCE = 1e-3
_LEAST_PRECISION = 1.0 / 9.0


@dataclass(frozen=True)
class Prior:
    """Priors of the hyperparameters on outcomes of unit scale; means and deviations are of logarithms."""

    length_scale_mean: float = 0.7
    """Plus half the logarithm of the number of dimensions. Half of √2, which Hvarfner et al. use: their prior learned
    too slowly in the first fifty proposals (docs/LOG.md)."""
    length_scale_deviation: float = math.sqrt(3.0)
    scale_mean: float = 0.0
    scale_deviation: float = 1.0
    noise_mean: float = -7.0
    noise_deviation: float = 2.5
    mean_variance: float = 1.0
    common: float = 0.0
    """Which share of the variance of the length scales' logarithms all dimensions have in common."""
    trend: float = 0.0
    """The variance b of a quadratic trend, without interactions, beneath the process."""


@dataclass(frozen=True)
class Kernel:
    """Fitted hyperparameters."""

    length_scales: Array  # (G,)
    scale: float
    noise: float
    mean_variance: float
    trend: float = 0.0

    def scaled(self, features: Array, groups: Index) -> Array:
        """Features divided by their length scales: (m, P) -> (m, P). With a trend √b B follows them: (m, 3P)."""
        points = features / self.length_scales[groups]
        if not self.trend:
            return points
        return np.concatenate([points, math.sqrt(self.trend) * _basis(features, len(self.length_scales))], axis=1)

    def between(self, left: Array, right: Array) -> Array:
        """Prior covariances, noise not included, of m and n points from `scaled`: (m, n)."""
        columns = left.shape[1] // 3 if self.trend else left.shape[1]
        covariances = _matern(squared_distances(left[:, :columns], right[:, :columns]), self.scale)
        covariances += self.mean_variance
        if self.trend:
            covariances += left[:, columns:] @ right[:, columns:].T
        return covariances

    def variance(self, points: Array) -> float | Array:
        """Prior variances of m points from `scaled`: (m,), or one number where all are equal."""
        flat = self.scale + self.mean_variance
        return flat + (points[:, points.shape[1] // 3 :] ** 2).sum(1) if self.trend else flat


@dataclass(frozen=True)
class Posterior:
    """A kernel conditioned on n observations."""

    kernel: Kernel
    groups: Index  # (P,)
    points: Array  # (n, P), scaled; (n, 3P) with a trend
    diagonal: Array  # (n,), what v adds to K
    whitening: Array  # (n, n), W: the inverse of K's lower Cholesky factor, so K⁻¹ = WᵀW
    weights: Array  # (n,), α
    targets: Array  # (n,)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and variance of the noiseless outcome: (m, P) -> (m,), (m,)."""
        points = self.kernel.scaled(features, self.groups)
        cross = self.kernel.between(points, self.points)
        whitened = cross @ self.whitening.T
        variance = self.kernel.variance(points) - np.vecdot(whitened, whitened)
        return cross @ self.weights, np.maximum(variance, 1e-12)

    def fitted(self) -> Array:
        """The mean of the noiseless outcome at the observations themselves: (n,). K α = y, so it is y - v α."""
        return self.targets - self.diagonal * self.weights

    def solved(self, targets: Array) -> Array:
        """K⁻¹ of k vectors: (n,) -> (n,), (k, n) -> (k, n)."""
        return np.asarray(targets @ self.whitening.T @ self.whitening)

    def believing(self, features: Array) -> Posterior:
        """The posterior as if the expected outcomes at m further points (m, P) had been observed.

        They change no mean, so their weights are zero; the factor gets m more rows, and so does its inverse.
        """
        known = len(self.points)
        added = self.kernel.scaled(features, self.groups)
        points = np.concatenate([self.points, added])
        covariances = self.kernel.between(added, points)  # (m, n + m)
        cross = covariances[:, :known]
        whitened = cross @ self.whitening.T
        left = covariances[:, known:] - whitened @ whitened.T
        corner, noise = _whitening(left, np.full(len(added), self.kernel.noise))
        whitening = np.zeros((len(points), len(points)))
        whitening[:known, :known] = self.whitening
        whitening[known:, :known] = -corner @ (whitened @ self.whitening)
        whitening[known:, known:] = corner
        return Posterior(
            self.kernel,
            self.groups,
            points,
            np.concatenate([self.diagonal, noise]),
            whitening,
            np.concatenate([self.weights, np.zeros(len(added))]),
            np.concatenate([self.targets, cross @ self.weights]),
        )

    def with_targets(self, targets: Array) -> Posterior:
        """The same points with other outcomes (n,)."""
        return replace(self, weights=self.solved(targets), targets=targets)


def condition(kernel: Kernel, groups: Index, features: Array, targets: Array, noise: Array | None = None) -> Posterior:
    """The posterior after observing `targets` (n,) at `features` (n, P). `noise` (n,) is added to the kernel's own."""
    points = kernel.scaled(features, groups)
    covariance = kernel.between(points, points)
    noise = np.full(len(points), kernel.noise) if noise is None else kernel.noise + noise
    whitening, diagonal = _whitening(covariance, noise)
    return Posterior(kernel, groups, points, diagonal, whitening, targets @ whitening.T @ whitening, targets)


def fit(features: Array, targets: Array, groups: Index, prior: Prior, max_iterations: int) -> Kernel:
    """The most probable hyperparameters given outcomes `targets` (n,), of about unit scale, at `features` (n, P).

    Starts from the prior's mode: the result depends on nothing but the arguments.
    """
    objective = _Objective(features, targets, groups, prior)
    count = objective.count
    start = objective.means.copy()
    start[:count] = math.log(0.5) + 0.5 * math.log(count)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=objective.bounds,
        options={"maxiter": max_iterations, "ftol": 1e-6},
    )
    return objective.kernel(found.x)


def likely(
    kernel: Kernel,
    features: Array,
    targets: Array,
    groups: Index,
    prior: Prior,
    count: int,
    generator: np.random.Generator,
) -> tuple[list[Kernel], float]:
    """`count` kernels that the outcomes leave possible, `kernel`, the most probable one, the first; and the logarithm
    of the prior's evidence, up to a constant that no prior changes.

    The others are drawn from Laplace's approximation: the normal distribution around the mode whose precision is the
    Hessian H there, here by central differences of the gradient. Where it is flat they stay within some units. By the
    same approximation the evidence is the density at the mode / √|H| (MacKay 2003, equation 27.4).
    """
    objective = _Objective(features, targets, groups, prior)
    mode = objective.logs(kernel)
    steps = _DIFFERENCE * np.eye(len(mode))
    rows = [objective(mode + step)[1] - objective(mode - step)[1] for step in steps]
    hessian = np.array(rows) / (2.0 * _DIFFERENCE)
    precisions, axes = np.linalg.eigh(0.5 * (hessian + hessian.T))
    precisions = np.maximum(precisions, _LEAST_PRECISION)
    away = generator.standard_normal((count - 1, len(mode))) / np.sqrt(precisions)
    low, high = np.array(objective.bounds).T
    evidence = -objective(mode)[0] - 0.5 * (objective.log_determinant + np.log(precisions).sum())
    return [kernel, *(objective.kernel(np.clip(mode + axes @ one, low, high)) for one in away)], float(evidence)


class _Objective:
    """Negative log posterior density of the hyperparameters' logarithms, with its gradient."""

    def __init__(self, features: Array, targets: Array, groups: Index, prior: Prior) -> None:
        self._features = features
        self._targets = targets
        self._groups = groups
        self._prior = prior
        self.count = count = int(groups.max()) + 1
        self._mean: float | Array = prior.mean_variance
        if prior.trend:
            basis = _basis(features, count)
            self._mean = prior.mean_variance + prior.trend * (basis @ basis.T)
        length_mean = prior.length_scale_mean + 0.5 * math.log(count)
        self.means = np.array([length_mean] * count + [prior.scale_mean, prior.noise_mean])
        covariance = np.diag(
            [prior.length_scale_deviation**2] * count + [prior.scale_deviation**2, prior.noise_deviation**2]
        )
        covariance[:count, :count] *= 1.0 - prior.common
        covariance[:count, :count] += prior.common * prior.length_scale_deviation**2
        self._precision = np.linalg.inv(covariance)
        self.log_determinant = float(np.linalg.slogdet(covariance)[1])
        self.bounds = [(-4.0, 8.0)] * count + [(-6.0, 4.0), (math.log(JITTER), 0.5)]

    def kernel(self, logs: Array) -> Kernel:
        scale, noise = np.exp(logs[self.count :]).tolist()
        return Kernel(np.exp(logs[: self.count]), scale, noise, self._prior.mean_variance, self._prior.trend)

    def logs(self, kernel: Kernel) -> Array:
        return np.log([*kernel.length_scales, kernel.scale, kernel.noise])

    def __call__(self, logs: Array) -> tuple[float, Array]:
        count = len(logs) - 2
        scale, noise = math.exp(logs[count]), math.exp(logs[count + 1])
        points = self._features * np.exp(-logs[:count])[self._groups]
        distances = np.sqrt(5.0 * squared_distances(points, points))
        decay = scale * np.exp(-distances)
        kernel = decay * (1.0 + distances + distances**2 / 3.0)
        factor, failed = dpotrf(_with_diagonal(kernel + self._mean, noise + JITTER).T, lower=1, overwrite_a=1)
        away = logs - self.means
        pull = self._precision @ away
        if failed:
            return 1e10, np.zeros_like(logs)
        inverse, _ = dpotri(factor, lower=1)
        # Its upper triangle is zero, as LAPACK left that of the factor.
        inverse = inverse + inverse.T
        _diagonal(inverse)[:] *= 0.5
        weights = inverse @ self._targets
        value = 0.5 * self._targets @ weights + np.log(np.diagonal(factor)).sum() + 0.5 * away @ pull
        outer = 0.5 * (np.outer(weights, weights) - inverse)
        slope = outer * (decay * (1.0 + distances))  # -(6/5) dL/d(r²) for each pair
        spread = points**2 * slope.sum(1)[:, None] - points * (slope @ points)
        gradient = np.empty_like(logs)
        # d(r²)/d(log l) = -2 (difference)²/l², and the sum over pairs of (a - b)² is twice the sum of `spread`.
        gradient[:count] = (10.0 / 3.0) * np.bincount(self._groups, spread.sum(0), count)
        gradient[count] = (outer * kernel).sum()
        gradient[count + 1] = noise * np.trace(outer)
        return float(value), pull - gradient


def _basis(features: Array, dimensions: int) -> Array:
    """B: (m, P) -> (m, 2P)."""
    z = 2.0 * features - 1.0
    return np.concatenate([z, 1.5 * z**2 - 0.5], axis=1) / math.sqrt(dimensions)


def squared_distances(left: Array, right: Array) -> Array:
    """(m, P), (n, P) -> (m, n)."""
    squares = left @ (-2.0 * right.T)
    squares += np.vecdot(left, left)[:, None]
    squares += np.vecdot(right, right)
    return np.asarray(np.maximum(squares, 0.0, out=squares))


def _matern(squares: Array, scale: float) -> Array:
    """s (1 + d + d²/3) exp(-d) with d = √5 r. Uses `squares` up: it is the largest part of a prediction's cost."""
    squares *= 5.0
    distances = np.sqrt(squares, out=squares)
    polynomial = distances * (1.0 / 3.0)
    polynomial += 1.0
    polynomial *= distances
    polynomial += 1.0
    decay = np.exp(np.negative(distances, out=distances), out=distances)
    decay *= polynomial
    decay *= scale
    return decay


def _diagonal(matrix: Array) -> Array:
    """A view: (n, n) -> (n,)."""
    return np.asarray(np.einsum("ii->i", matrix))


def _with_diagonal(matrix: Array, diagonal: float | Array) -> Array:
    _diagonal(matrix)[:] += diagonal
    return matrix


def _whitening(covariance: Array, noise: Array) -> tuple[Array, Array]:
    """The inverse of the lower factor, with as much jitter as it takes, and what was added to the diagonal."""
    jitter = JITTER
    while True:
        diagonal = noise + jitter
        # Transposed, which changes nothing of a symmetric matrix but LAPACK's need of a copy.
        factor, failed = dpotrf(_with_diagonal(covariance.copy(), diagonal).T, lower=1, overwrite_a=1)
        if not failed:
            whitening, _ = dtrtri(factor, lower=1, overwrite_c=1)
            return np.asarray(whitening), diagonal
        jitter *= 10.0
