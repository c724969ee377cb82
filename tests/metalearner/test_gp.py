"""The Gaussian process against independent answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.polynomial.legendre import legval
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from metalearner import compiled_process, gp
from metalearner.acquisition import log_expected_improvement


def _data(count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    features = generator.random((count, 3))
    targets = np.sin(5 * features[:, 0]) + features[:, 1] ** 2
    return features, (targets - targets.mean()) / targets.std()


def test_the_posterior_is_that_of_scikit_learn() -> None:
    features, targets = _data()
    kernel = gp.Kernel(np.array([0.3, 0.7, 2.0]), scale=1.7, noise=0.01, mean_variance=0.5)
    ours = gp.condition(kernel, np.arange(3), features, targets)
    theirs = GaussianProcessRegressor(
        ConstantKernel(1.7) * Matern([0.3, 0.7, 2.0], nu=2.5) + ConstantKernel(0.5),
        alpha=0.01 + gp.JITTER,
        optimizer=None,
    ).fit(features, targets)
    queries = np.random.default_rng(1).random((20, 3))

    mean, variance = ours.predict(queries)

    expected_mean, expected_deviation = theirs.predict(queries, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-8)
    np.testing.assert_allclose(np.sqrt(variance), expected_deviation, atol=1e-6)


def test_believing_is_conditioning_on_what_is_expected() -> None:
    features, targets = _data()
    kernel = gp.Kernel(np.array([0.3, 0.7, 2.0]), scale=1.7, noise=0.01, mean_variance=0.5)
    before = gp.condition(kernel, np.arange(3), features, targets)
    # One of them was observed already.
    pending = np.concatenate([np.random.default_rng(2).random((4, 3)), features[:1]])
    expected, _ = before.predict(pending)
    queries = np.random.default_rng(1).random((20, 3))

    ours = before.believing(pending)
    anew = gp.condition(kernel, np.arange(3), np.concatenate([features, pending]), np.concatenate([targets, expected]))

    for mine, theirs in zip(ours.predict(queries), anew.predict(queries), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict(queries)[0], before.predict(queries)[0], atol=1e-8)
    np.testing.assert_allclose(ours.fitted(), ours.predict(np.concatenate([features, pending]))[0], atol=1e-8)


def test_a_trend_is_bayesian_regression_on_polynomials() -> None:
    """With next to no process the posterior is that of the weights of Legendre's polynomials."""
    features, targets = _data()
    kernel = gp.Kernel(np.ones(3), scale=1e-9, noise=0.01, mean_variance=0.5, trend=2.0)
    queries = np.random.default_rng(1).random((20, 3))

    mean, variance = gp.condition(kernel, np.arange(3), features, targets).predict(queries)

    def columns(rows: np.ndarray) -> np.ndarray:
        polynomials = [legval(2 * rows - 1, np.eye(3)[degree]) * np.sqrt(2.0 / 3.0) for degree in (1, 2)]
        return np.concatenate([np.full((len(rows), 1), np.sqrt(0.5)), *polynomials], axis=1)

    known, asked = columns(features), columns(queries)
    covariance = np.linalg.inv(np.eye(7) + known.T @ known / (0.01 + gp.JITTER))
    np.testing.assert_allclose(mean, asked @ covariance @ known.T @ targets / (0.01 + gp.JITTER), atol=1e-5)
    np.testing.assert_allclose(variance, ((asked @ covariance) * asked).sum(1), atol=1e-5)


def test_believing_knows_of_the_trend() -> None:
    features, targets = _data()
    kernel = gp.Kernel(np.ones(3), scale=0.7, noise=0.01, mean_variance=0.5, trend=2.0)
    before = gp.condition(kernel, np.arange(3), features, targets)
    pending, queries = np.random.default_rng(2).random((2, 5, 3))
    expected, _ = before.predict(pending)

    ours = before.believing(pending)
    anew = gp.condition(kernel, np.arange(3), np.concatenate([features, pending]), np.concatenate([targets, expected]))

    for mine, theirs in zip(ours.predict(queries), anew.predict(queries), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)


KNOWN = ((-1.0, 0.7), None, (0.5, 0.4))


@pytest.mark.parametrize(
    "prior", [gp.Prior(), gp.Prior(common=0.85, trend=1.0), gp.Prior(common=0.5, length_scales=KNOWN)]
)
def test_the_gradient_of_the_fit_is_that_of_finite_differences(prior: gp.Prior) -> None:
    features, targets = _data(20)
    objective = gp._Objective(features, targets, np.arange(3), prior)
    at = np.array([-0.5, 0.2, 0.9, 0.3, -3.0])

    _, gradient = objective(at)

    steps = 1e-5 * np.eye(5)
    numeric = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_a_fit_finds_out_which_dimension_matters() -> None:
    generator = np.random.default_rng(2)
    features = generator.random((60, 3))
    targets = np.sin(7 * features[:, 1])

    kernel = gp.fit(features, (targets - targets.mean()) / targets.std(), np.arange(3), gp.Prior(), 60)

    assert kernel.length_scales.argmin() == 1
    assert kernel.length_scales[1] < 0.2 * min(kernel.length_scales[0], kernel.length_scales[2])


def test_likely_kernels_are_spread_as_the_results_leave_them_open() -> None:
    """The covariance of the draws is the inverse of the Hessian of the posterior density, here by second differences
    of its value."""
    features, targets = _data(40)
    targets = targets + 0.3 * np.random.default_rng(3).standard_normal(40)  # else the noise lies at its least
    features, groups, prior = features[:, :2], np.arange(2), gp.Prior()
    mode = gp.fit(features, targets, groups, prior, 200)
    objective = gp._Objective(features, targets, groups, prior)
    drawn, _ = gp.likely(mode, features, targets, groups, prior, 20_001, np.random.default_rng(0))
    logs = np.array([objective.logs(one) for one in drawn])

    assert drawn[0] is mode
    steps = 3e-3 * np.eye(4)
    hessian = np.empty((4, 4))
    for i, one in enumerate(steps):
        for j, other in enumerate(steps):
            corners = [
                sign * objective(logs[0] + a * one + b * other)[0]
                for sign, a, b in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1))
            ]
            hessian[i, j] = sum(corners) / (4 * 3e-3**2)
    found, expected = np.cov(logs[1:].T), np.linalg.inv(hessian)
    sizes = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(found / np.outer(sizes, sizes), expected / np.outer(sizes, sizes), atol=0.08)


def test_likely_kernels_differ_less_the_more_is_known() -> None:
    spreads = []
    for count in (6, 60):
        features, targets = _data(count)
        kernel = gp.fit(features, targets, np.arange(3), gp.Prior(), 60)
        drawn, _ = gp.likely(kernel, features, targets, np.arange(3), gp.Prior(), 12, np.random.default_rng(1))
        queries = np.random.default_rng(2).random((50, 3))
        means = [gp.condition(one, np.arange(3), features, targets).predict(queries)[0] for one in drawn]
        assert np.isfinite(means).all()
        spreads.append(float(np.std(means, axis=0).mean()))
    assert spreads[1] < 0.5 * spreads[0]


def test_the_evidence_is_the_integral_over_the_hyperparameters() -> None:
    """Ratios of evidences of four priors against importance sampling from the priors; the constants cancel."""
    features, targets = _data(14)
    features, groups, generator = features[:, :2], np.arange(2), np.random.default_rng(4)
    laplace, sampled = [], []
    known = gp.Prior(length_scales=(KNOWN[0], None), common=0.5)
    for prior in (gp.Prior(), gp.Prior(common=0.85), gp.Prior(trend=1.0), known):
        mode = gp.fit(features, targets, groups, prior, 200)
        laplace.append(gp.likely(mode, features, targets, groups, prior, 2, generator)[1])
        deviations = np.array([0.7 if prior is known else math.sqrt(3.0), math.sqrt(3.0)])
        own = np.outer(deviations, deviations) * ((1.0 - prior.common) * np.eye(2) + prior.common)
        covariance = np.block([[own, np.zeros((2, 2))], [np.zeros((2, 2)), np.diag([1.0, 2.5**2])]])
        usual = 0.7 + 0.5 * math.log(2.0)
        means = [-1.0 if prior is known else usual, usual, 0.0, -7.0]
        logs = np.clip(generator.multivariate_normal(means, covariance, 6000), -13.0, 8.0)
        densities = []
        for one in logs:
            length_scales, scale, noise = np.exp(one[:2]), math.exp(one[2]), math.exp(one[3])
            kernel = gp.Kernel(length_scales, scale, noise, prior.mean_variance, prior.trend)
            points = kernel.scaled(features, groups)
            densities.append(
                multivariate_normal(cov=kernel.between(points, points) + (noise + gp.JITTER) * np.eye(14)).logpdf(
                    targets
                )
            )
        sampled.append(logsumexp(densities))
    np.testing.assert_allclose(np.diff(laplace), np.diff(sampled), atol=0.3)


def test_the_evidence_tells_a_bowl_from_a_dimension_that_does_not_matter() -> None:
    features = np.random.default_rng(5).random((25, 3))
    ripples = 0.3 * np.cos(60 * features).sum(1)
    evidences = []
    for targets in (9 * ((features - 0.4) ** 2).sum(1) + ripples, np.sin(9 * features[:, 0])):
        targets = (targets - targets.mean()) / targets.std()
        for prior in (gp.Prior(), gp.Prior(trend=1.0), gp.Prior(common=0.85)):
            mode = gp.fit(features, targets, np.arange(3), prior, 60)
            drawn = gp.likely(mode, features, targets, np.arange(3), prior, 2, np.random.default_rng(0))
            evidences.append(drawn[1])
    assert evidences[1] > max(evidences[0], evidences[2]) + 1.0
    assert evidences[3] > max(evidences[4], evidences[5]) + 1.0


def test_identical_points_do_not_break_the_factorisation() -> None:
    features = np.full((5, 2), 0.5)

    kernel = gp.fit(features, np.zeros(5), np.arange(2), gp.Prior(), 30)
    mean, variance = gp.condition(kernel, np.arange(2), features, np.zeros(5)).predict(features)

    assert np.isfinite(mean).all()
    assert (variance > 0).all()


@pytest.mark.parametrize("z", [-3.0, -1.5, -0.5, 0.0, 2.0])
def test_log_expected_improvement_is_the_integral(z: float) -> None:
    expected, _ = quad(lambda t: max(z - t, 0.0) * norm.pdf(t), -12, max(z, 0.0) + 12, limit=200, points=[z])

    np.testing.assert_allclose(compiled_process.log_h(z), math.log(expected), rtol=1e-5)


def test_log_expected_improvement_tells_hopeless_candidates_apart() -> None:
    means = np.array([20.0, 30.0, 1e6])

    values = log_expected_improvement(means, np.ones(3), best=0.0)

    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2]
