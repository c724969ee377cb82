"""A lean Gaussian process: Matérn-5/2 with one length scale a dimension, fitted by its analytic gradient.

Symbols: n observations, P feature columns, G length scales (one a dimension of the space), m candidates.
    r²(a, b) = sum_p (a_p - b_p)² / l_{g(p)}²
    k(r) = s (1 + √5 r + 5r²/3) exp(-√5 r),   dk/d(r²) = -(5/6) s (1 + √5 r) exp(-√5 r)
    K = k + c 11ᵀ + b BBᵀ + v I                c: a flat prior of the mean;  v: noise and jitter
    B: z and its second Legendre polynomial (3z² - 1)/2 for each column, z = 2a - 1, over √G;  b: the trend's variance,
       0 unless asked for (Rasmussen & Williams 2006, section 2.7: a mean of basis functions with a normal prior)
    log p(y) = -½ yᵀK⁻¹y - ½ log|K|,  d/dθ = ½ tr((ααᵀ - K⁻¹) dK/dθ),  α = K⁻¹y
Length scales have the dimension-scaled log-normal prior of Hvarfner et al. (2024, arXiv 2402.02229).
No torch: importing it and its cost a call are more than a whole proposal here takes. The loops are compiled
(`compiled_process`), the factors LAPACK's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dtrtri
from scipy.optimize import minimize

from metalearner import compiled_process as loops
from metalearner.arrays import Array, Index

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
    length_scales: tuple[tuple[float, float] | None, ...] = ()
    """Mean and deviation of each length scale's logarithm where it is known apart; empty: of none."""

    def lengths(self, dimensions: int) -> tuple[Array, Array]:
        """Means and deviations of the logarithms of so many length scales: (G,), (G,)."""
        usual = self.length_scale_mean + 0.5 * math.log(dimensions), self.length_scale_deviation
        known = self.length_scales or (None,) * dimensions
        means, deviations = np.array([usual if one is None else one for one in known]).T
        return means, deviations


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
        return loops.scaled(np.ascontiguousarray(features), groups, self.length_scales, self.trend)

    def between(self, left: Array, right: Array) -> Array:
        """Prior covariances, noise not included, of m and n points from `scaled`: (m, n)."""
        return loops.covariances(left, right, self.columns(left), self.scale, self.mean_variance)

    def columns(self, points: Array) -> int:
        """How many columns of points from `scaled` are no trend's: P."""
        count: int = points.shape[1]
        return count // 3 if self.trend else count


@dataclass(frozen=True)
class Posterior:
    """A kernel conditioned on n observations."""

    kernel: Kernel
    groups: Index  # (P,)
    points: Array  # (n, P), scaled; (n, 3P) with a trend
    diagonal: Array  # (n,), what v adds to K
    whitening: Array  # (n, n), W: the inverse of K's lower Cholesky factor L, so K⁻¹ = WᵀW
    weights: Array  # (n,), α
    targets: Array  # (n,)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and variance of the noiseless outcome: (m, P) -> (m,), (m,)."""
        kernel, added = self.kernel, self.kernel.scaled(features, self.groups)
        return loops.predicted(
            added,
            self.points,
            self.whitening,
            self.weights,
            kernel.columns(added),
            kernel.scale,
            kernel.mean_variance,
        )

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
        kernel, added = self.kernel, self.kernel.scaled(features, self.groups)
        points, whitening, diagonal, expected = loops.extended(
            added,
            self.points,
            self.whitening,
            self.weights,
            kernel.columns(added),
            kernel.scale,
            kernel.mean_variance,
            kernel.noise,
            JITTER,
        )
        return Posterior(
            kernel,
            self.groups,
            points,
            np.concatenate([self.diagonal, diagonal]),
            whitening,
            np.concatenate([self.weights, np.zeros(len(added))]),
            np.concatenate([self.targets, expected]),
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

    Starts from a point that the prior alone says: the result depends on nothing but the arguments.
    """
    objective = _Objective(features, targets, groups, prior)
    start = objective.means.copy()
    if not prior.length_scales:
        start[: objective.count] = math.log(0.5) + 0.5 * math.log(objective.count)
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
        self._features = np.ascontiguousarray(features)
        self._targets = np.ascontiguousarray(targets)
        self._groups = groups
        self._prior = prior
        self.count = count = int(groups.max()) + 1
        self._mean = np.full((len(features), len(features)), prior.mean_variance)
        if prior.trend:
            basis = _basis(features, count)
            self._mean += prior.trend * (basis @ basis.T)
        means, deviations = prior.lengths(count)
        self.means = np.array([*means, prior.scale_mean, prior.noise_mean])
        covariance = np.diag([*deviations**2, prior.scale_deviation**2, prior.noise_deviation**2])
        covariance[:count, :count] *= 1.0 - prior.common
        covariance[:count, :count] += prior.common * np.outer(deviations, deviations)
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
        scale, noise = np.exp(logs[count:]).tolist()
        points = loops.scaled(self._features, self._groups, np.exp(logs[:count]), 0.0)
        covariance, kernel, slopes = loops.evidence(points, scale, self._mean, noise + JITTER)
        away = logs - self.means
        pull = self._precision @ away
        # LAPACK counts by columns: transposed, a symmetric matrix needs no copy.
        factor, failed = dpotrf(covariance.T, lower=1, overwrite_a=1)
        if failed:
            return 1e10, np.zeros_like(logs)
        half_log_determinant = float(np.log(np.diagonal(factor)).sum())
        inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
        gradient = np.empty_like(logs)
        value = loops.derivatives(points, self._groups, self._targets, inverse.T, kernel, slopes, gradient)
        gradient[count + 1] *= noise
        return value + half_log_determinant + 0.5 * float(away @ pull), pull - gradient


def _basis(features: Array, dimensions: int) -> Array:
    """B: (m, P) -> (m, 2P)."""
    z = 2.0 * features - 1.0
    return np.concatenate([z, 1.5 * z**2 - 0.5], axis=1) / math.sqrt(dimensions)


def _whitening(covariance: Array, noise: Array) -> tuple[Array, Array]:
    """The inverse of the lower factor, with as much jitter as it takes, and what was added to the diagonal."""
    jitter = JITTER
    while True:
        diagonal = noise + jitter
        # LAPACK counts by columns: its upper factor is the transposed lower one.
        matrix = covariance.copy()
        matrix.ravel()[:: len(matrix) + 1] += diagonal
        factor, failed = dpotrf(matrix.T, lower=0, overwrite_a=1)
        if not failed:
            inverse, _ = dtrtri(factor, lower=0, overwrite_c=1)
            return np.asarray(inverse.T), diagonal
        jitter *= 10.0
