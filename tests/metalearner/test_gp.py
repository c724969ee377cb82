"""The Gaussian process against independent answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from metalearner import gp
from metalearner.acquisition import log_expected_improvement, log_h


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


def test_the_gradient_of_the_fit_is_that_of_finite_differences() -> None:
    features, targets = _data(20)
    objective = gp._Objective(features, targets, np.arange(3), gp.Prior())
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
    drawn = gp.likely(mode, features, targets, groups, prior, 20_001, np.random.default_rng(0))
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
        drawn = gp.likely(kernel, features, targets, np.arange(3), gp.Prior(), 12, np.random.default_rng(1))
        queries = np.random.default_rng(2).random((50, 3))
        means = [gp.condition(one, np.arange(3), features, targets).predict(queries)[0] for one in drawn]
        assert np.isfinite(means).all()
        spreads.append(float(np.std(means, axis=0).mean()))
    assert spreads[1] < 0.5 * spreads[0]


def test_identical_points_do_not_break_the_factorisation() -> None:
    features = np.full((5, 2), 0.5)

    kernel = gp.fit(features, np.zeros(5), np.arange(2), gp.Prior(), 30)
    mean, variance = gp.condition(kernel, np.arange(2), features, np.zeros(5)).predict(features)

    assert np.isfinite(mean).all()
    assert (variance > 0).all()


@pytest.mark.parametrize("z", [-3.0, -1.5, -0.5, 0.0, 2.0])
def test_log_expected_improvement_is_the_integral(z: float) -> None:
    expected, _ = quad(lambda t: max(z - t, 0.0) * norm.pdf(t), -12, max(z, 0.0) + 12, limit=200, points=[z])

    np.testing.assert_allclose(log_h(np.array([z])), [math.log(expected)], rtol=1e-5)


def test_log_expected_improvement_tells_hopeless_candidates_apart() -> None:
    means = np.array([20.0, 30.0, 1e6])

    values = log_expected_improvement(means, np.ones(3), best=0.0)

    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2]
