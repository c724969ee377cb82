"""The compiled loops of the process against numpy, SciPy and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import erfcx

from metalearner import compiled_process, gp
from metalearner.acquisition import log_expected_improvement

TOLERANCE = 1e-9
"""Of what is compared, relative to the largest."""


def _agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=TOLERANCE * max(1.0, float(np.abs(theirs).max())))


def _covariances(kernel: gp.Kernel, groups: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As the docstring of `gp` has them."""
    lengths = kernel.length_scales[groups]
    r = cdist(left / lengths, right / lengths)
    result = kernel.scale * (1 + math.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-math.sqrt(5) * r) + kernel.mean_variance
    z, other = 2 * left - 1, 2 * right - 1
    trend = z @ other.T + (1.5 * z**2 - 0.5) @ (1.5 * other**2 - 0.5).T
    return result + kernel.trend / len(kernel.length_scales) * trend


def _problem(number: int) -> tuple[gp.Kernel, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """A kernel, groups (P,), features (n, P), targets (n,): one to eight dimensions, some of three columns."""
    generator = np.random.default_rng(number)
    dimensions = int(generator.integers(1, 9))
    groups = np.repeat(np.arange(dimensions), generator.choice([1, 1, 3], dimensions))
    features = generator.random((int(generator.integers(1, 70)), len(groups)))
    features[generator.random(features.shape) < 0.2] = 0.5
    kernel = gp.Kernel(
        np.exp(generator.normal(0.0, 1.0, dimensions)),
        scale=float(np.exp(generator.normal())),
        noise=float(np.exp(generator.uniform(-9.0, -1.0))),
        mean_variance=1.0,
        trend=[0.0, 1.0][number % 2],
    )
    return kernel, groups, features, generator.standard_normal(len(features)), generator


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("pending", [0, 1, 5])
def test_means_and_variances_are_those_of_numpy(number: int, pending: int) -> None:
    # Given results, and trials under way, one of which repeats a result
    kernel, groups, features, targets, generator = _problem(number)
    waiting = np.concatenate([features[:1], generator.random((4, len(groups)))])[:pending]
    queries = generator.random((40, len(groups)))

    # When they are believed to turn out as expected
    posterior = gp.condition(kernel, groups, features, targets)
    posterior = posterior.believing(waiting) if pending else posterior
    mean, variance = posterior.predict(queries)

    # Then it is what the inverse of the whole matrix says
    noise = (kernel.noise + gp.JITTER) * np.eye(len(features))
    inverse = np.linalg.inv(_covariances(kernel, groups, features, features) + noise)
    _agree(mean, _covariances(kernel, groups, queries, features) @ inverse @ targets)
    every = np.concatenate([features, waiting])
    cross = _covariances(kernel, groups, queries, every)
    noise = (kernel.noise + gp.JITTER) * np.eye(len(every))
    inverse = np.linalg.inv(_covariances(kernel, groups, every, every) + noise)
    own = np.diag(_covariances(kernel, groups, queries, queries))
    _agree(variance, own - np.einsum("ij,jk,ik->i", cross, inverse, cross))
    _agree(posterior.fitted(), _covariances(kernel, groups, every, features) @ posterior.weights[: len(features)])


def test_a_point_that_is_believed_twice_without_noise_takes_jitter() -> None:
    kernel = gp.Kernel(np.full(2, 3.0), scale=1e8, noise=0.0, mean_variance=1.0)
    points = np.full((6, 2), 0.5)

    posterior = gp.condition(kernel, np.arange(2), points[:3], np.ones(3)).believing(points)

    assert np.isfinite(posterior.whitening).all()
    assert np.isfinite(posterior.predict(points)[1]).all()


def test_the_exponential_is_numpys_but_for_rounding() -> None:
    x = np.concatenate([np.linspace(-700.0, 0.0, 200_001), -np.logspace(-300, 0, 301)])
    found = np.array([compiled_process.exponential(one) for one in x.tolist()])
    np.testing.assert_allclose(found, np.exp(x), rtol=4e-16)

    # Far out it is next to nothing, and NaN stays
    assert 0.0 <= compiled_process.exponential(-1e9) < 1e-300
    assert math.isnan(compiled_process.exponential(math.nan))


def test_log_expected_improvement_is_that_of_scipy() -> None:
    z = np.concatenate([np.linspace(-60.0, 9.0, 5000), -np.logspace(2, 4, 200)])
    deviation = np.random.default_rng(0).uniform(0.1, 3.0, len(z))
    found = log_expected_improvement(2.0 - z * deviation, deviation**2, 2.0)

    # φ(z) + z Φ(z) = φ(z) (1 + z Φ(z) / φ(z)), and Φ(z) / φ(z) = √(π/2) erfcx(-z/√2)
    ratio = math.sqrt(math.pi / 2) * erfcx(-z / math.sqrt(2))
    expected = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + np.log1p(z * ratio) + np.log(deviation)
    # There 1 + z Φ(z) / φ(z) has lost more digits than are asked for.
    near = z > -1000.0
    np.testing.assert_allclose(found[near], expected[near], rtol=TOLERANCE)
    far = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-z, where=~near, out=np.zeros_like(z))
    np.testing.assert_allclose(found[~near], (far + np.log(deviation))[~near], rtol=TOLERANCE)


def test_the_nearest_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    features, known = generator.random((50, 4)), generator.random((30, 4))

    distances, places = compiled_process.nearest(features, known, False)
    assert (places == cdist(features, known).argmin(1)).all()
    _agree(distances, cdist(features, known).min(1))

    distances, places = compiled_process.nearest(known, known, True)
    others = cdist(known, known) + np.diag(np.full(30, np.inf))
    assert (places == others.argmin(1)).all()
    _agree(distances, others.min(1))


def test_where_arrays_lie_changes_no_bit() -> None:
    """A loop that adds up and writes is compiled twice, and where arrays lie decides which way it goes."""
    found = set()
    for number in range(40):
        _, groups, features, targets, _ = _problem(7)
        apart = [np.empty(size) for size in range(1, 2 + number * 7)]
        objective = gp._Objective(features, targets, groups, gp.Prior())
        value, gradient = objective(objective.means)
        found.add((value, *gradient.tolist(), len(apart) < 0))
    assert len(found) == 1
