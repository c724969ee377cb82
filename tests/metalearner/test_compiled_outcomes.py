"""The compiled scores against SciPy and against the same formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from metalearner import compiled_outcomes
from metalearner.outcomes import warp


def test_quantiles_are_those_of_scipy() -> None:
    shares = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 20_001), np.logspace(-300, -7, 300)])
    found = [compiled_outcomes.quantile(one) for one in shares.tolist()]
    np.testing.assert_allclose(found, ndtri(shares), rtol=1e-13, atol=1e-14)


def test_a_line_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    places, heights = np.sort(np.round(generator.random(20), 1)), np.sort(generator.random(20))
    for x in (-1.0, 2.0, *places, *generator.random(50)):
        assert compiled_outcomes.interpolated(x, places, heights) == pytest.approx(np.interp(x, places, heights))
    assert compiled_outcomes.interpolated(0.3, places[:1], heights[:1]) == heights[0]


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("failed", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3, 10, 65])
def test_scores_are_what_they_are_said_to_be(count: int, failed: float, digits: int) -> None:
    generator = np.random.default_rng(count)
    losses = np.round(generator.standard_normal(count), digits)
    losses[generator.random(count) < failed] = np.inf
    losses[0] = 0.25

    scale, scores = warp(losses)

    feasible = losses[np.isfinite(losses)]
    median = float(np.median(feasible))
    good = feasible[feasible <= median]
    spread = float(np.sqrt(np.mean((good - median) ** 2)))
    shares = (rankdata(losses) - 0.5) / count
    order = np.argsort(feasible)
    middle = ndtri(np.interp(median, feasible[order], shares[np.isfinite(losses)][order]))
    linear = (losses - median) / spread if spread > 1e-12 * abs(median) else np.zeros(count)
    raw = np.where(losses <= median, linear, ndtri(shares) - middle)
    deviation = raw.std() if raw.std() > 1e-9 else 1.0
    np.testing.assert_allclose(scores, (raw - raw.mean()) / deviation, rtol=1e-9, atol=1e-12)
    assert scale.slope == pytest.approx(1.0 / (spread * deviation) if spread > 1e-12 * abs(median) else 0.0)


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize("count", [65, 90, 1000])
def test_of_many_the_best_the_last_and_some_between_are_looked_at(count: int, digits: int) -> None:
    losses = np.round(np.random.default_rng(count).standard_normal(count), digits)
    losses[3::11] = np.inf

    places = compiled_outcomes.spread_out(losses, 64)

    assert len(places) == len(set(places.tolist())) == 64
    assert (np.diff(places) > 0).all()
    best = set(np.argsort(losses, kind="stable")[:21].tolist())
    sure = best | set(range(count - 21, count))
    assert sure <= set(places.tolist())
    rest = [place for place in range(count) if place not in sure]
    number = 64 - len(sure)
    assert set(places.tolist()) - sure == {rest[i * (len(rest) - 1) // (number - 1)] for i in range(number)}
