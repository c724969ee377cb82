"""Compiles what is compiled, or reads what was compiled before, and imports what was not needed yet, so that the first
proposal does not wait for it.
"""

from __future__ import annotations

import numpy as np

from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int
from foretune.spaces import Space
from metalearner import gp, quasirandom
from metalearner.acquisition import log_expected_improvement
from metalearner.arrays import Array
from metalearner.compiled_outcomes import spread_out
from metalearner.encoding import Encoding, is_among
from metalearner.expert import Belief
from metalearner.outcomes import prediction, warp
from metalearner.sameness import sameness
from metalearner.search import SearchPlan, search

_SPACE = Space.of(Float("x", 0.0, 1.0), Int("n", 1, 3), Categorical("c", ["a", "b", "d"]))


def warm_up() -> None:
    """Calls everything compiled once, on next to nothing, with the types that it is called with."""
    quasirandom.point(1, 0, 0)
    encoding = Encoding.of(_SPACE)
    rows = encoding.encode_all([{"x": 0.1, "n": 1, "c": "a"}, {"x": 0.2, "n": 1, "c": "a"}, {"x": 0.9, "n": 3}])
    features, losses = encoding.features(rows), np.array([0.0, 0.0, 1.0])
    scale, scores = warp(losses)
    spread_out(np.arange(12.0), 9)
    prediction(scale, Goal.MINIMIZE, 0.5, 1.0)
    kernel = gp.fit(features, scores, encoding.groups, gp.Prior(), 1)
    posterior = gp.condition(kernel, encoding.groups, features, scores).believing(features)
    same, belief = sameness(features, losses), Belief(encoding, rows[0])
    assert same is not None, "the first two are each other's neighbours, with one loss"

    def acquisition(rows: Array) -> Array:
        columns = encoding.features(rows)
        improvement = log_expected_improvement(*posterior.predict(columns), 0.0)
        return improvement + same.log_news(columns, features) + belief.bonus(rows, 1)

    found, _ = search(acquisition, encoding, rows, np.random.default_rng(0), SearchPlan(1, 1, 1, 1, 1))
    is_among(found[0], rows)
