"""The search over a typed space: what is scored is what a trial could run, and the best of it is found."""

from __future__ import annotations

import numpy as np
import pytest

from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import Space
from metalearner.encoding import Encoding
from metalearner.search import SearchPlan, search

ENCODING = Encoding.of(
    Space.of(
        Float("x", 0.0, 1.0),
        Int("n", 1, 9),
        Categorical("kind", ["a", "b", "c"]),
        Float("y", 0.0, 1.0, when={"kind": ["b"]}),
        Bool("flag"),
    )
)
PLAN = SearchPlan(64, 64, 2, 3, 32)


def _height(rows: np.ndarray) -> np.ndarray:
    """Highest at x = .3, n = 7, kind b, y = .8, with the flag."""
    distance = (rows[:, 0] - 0.3) ** 2 + (rows[:, 1] - ENCODING.encode({"n": 7})[1]) ** 2
    return -distance - np.where(np.isnan(rows[:, 3]), 1.0, (rows[:, 3] - 0.8) ** 2) - (rows[:, 4] < 0.5)


def test_the_highest_is_found_in_all_kinds_of_dimensions_at_once() -> None:
    incumbents = ENCODING.rows(np.random.default_rng(0).random((5, ENCODING.width)))

    rows, values = search(_height, ENCODING, incumbents, np.random.default_rng(1), PLAN)

    best = ENCODING.decode(rows[0])
    assert (best["n"], best["kind"], best["flag"]) == (7, "b", True)
    assert values[0] > -0.01
    assert (np.diff(values) <= 0.0).all()


def test_every_candidate_is_a_row_that_a_trial_could_run() -> None:
    scored = []

    def note(rows: np.ndarray) -> np.ndarray:
        scored.append(rows)
        return _height(rows)

    incumbents = ENCODING.rows(np.random.default_rng(2).random((3, ENCODING.width)))
    search(note, ENCODING, incumbents, np.random.default_rng(3), PLAN)

    rows = np.concatenate(scored)
    assert len(rows) == 64 + 64 + 3 * 2 * 32
    np.testing.assert_allclose(ENCODING.encode_all([ENCODING.decode(row) for row in rows]), rows, atol=1e-12)


def test_without_incumbents_it_begins_anywhere() -> None:
    nothing = np.empty((0, ENCODING.width))

    rows, values = search(_height, ENCODING, nothing, np.random.default_rng(4), PLAN)

    assert len(rows) == len(values) == 64 + 3 * 2 * 32
    assert values[0] > -0.05


def test_steps_from_incumbents_are_of_all_sizes_and_refinement_shrinks() -> None:
    # Given one incumbent in the middle of four numbers, and heights that keep it the start of every round
    encoding = Encoding.of(Space.of(*(Float(name, 0.0, 1.0) for name in "abcd")))
    middle, scored = np.full((1, 4), 0.5), []

    def height(rows: np.ndarray) -> np.ndarray:
        scored.append(rows)
        return -np.arange(float(len(rows)))

    search(height, encoding, middle, np.random.default_rng(5), SearchPlan(1, 20_000, 1, 3, 4000))

    # Then the logarithm of a size is uniform from .003 to .3; that of a normal's absolute value has the mean
    # -(γ + ln 2) / 2 and the variance π² / 8
    steps = np.abs(scored[0][1:] - 0.5)
    sizes = np.log(steps[steps > 1e-12])
    assert np.mean(sizes) == pytest.approx(np.log([0.003, 0.3]).mean() - (np.euler_gamma + np.log(2)) / 2, abs=0.05)
    assert np.var(sizes) == pytest.approx(np.log(100.0) ** 2 / 12 + np.pi**2 / 8, rel=0.05)
    # And each round takes 35 % of the last one's steps
    start = scored[0][0]
    for number, rows in enumerate(scored[1:]):
        steps = np.abs(rows - start)
        assert np.median(steps[steps > 1e-12]) == pytest.approx(0.6745 * 0.1 * 0.35**number, rel=0.2)
