"""The belief in an expert's default, against numerical integration and counts."""

from __future__ import annotations

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import Configuration, Space
from metalearner import Observation, Problem, ProposerName, propose
from metalearner.encoding import Encoding
from metalearner.expert import Belief
from metalearner.values import Origin

SPACE = Space.of(
    Float("rate", 1e-4, 1.0, log=True),
    Categorical("kind", ["a", "b", "c"]),
    Bool("flag"),
    Int("width", 1, 9),
    Float("momentum", 0.0, 1.0, when={"kind": ["a"]}),
)
DEFAULT: Configuration = {"rate": 1e-3, "kind": "b", "flag": True, "width": 8}
ENCODING = Encoding(SPACE)
BELIEF = Belief(ENCODING, ENCODING.encode(DEFAULT))


def density(rows: np.ndarray) -> np.ndarray:
    return np.exp(BELIEF.bonus(rows, 5))  # with as many results as its strength, the bonus is the log density


def test_points_are_distributed_as_the_density_says() -> None:
    points = np.random.default_rng(0).random((4000, ENCODING.width))
    rate = np.sort([BELIEF.spread(point)[0] for point in points])
    grid = np.linspace(0.0, 1.0, 2001)
    rows = np.tile(ENCODING.encode(DEFAULT), (len(grid), 1))
    rows[:, 0] = grid
    weights = density(rows)
    shares = np.cumsum(weights) / weights.sum()
    there = np.interp(rate, grid, shares)
    assert np.abs(there - np.linspace(0.0, 1.0, len(rate))).max() < 0.03
    kinds = ENCODING.rows(np.array([BELIEF.spread(point) for point in points]))[:, 1]
    places, counts = np.unique(kinds, return_counts=True)
    assert np.allclose(counts / len(points), [0.25, 0.5, 0.25], atol=0.03)
    assert np.allclose(places, [1 / 6, 0.5, 5 / 6])


def test_nothing_is_ruled_out_and_the_default_is_likeliest() -> None:
    rows = ENCODING.rows(np.random.default_rng(1).random((2000, ENCODING.width)))
    bonus = BELIEF.bonus(rows, 5)
    assert np.isfinite(bonus).all()
    assert BELIEF.bonus(ENCODING.encode(DEFAULT)[None, :], 5)[0] > bonus.max()


def test_it_fades_with_results() -> None:
    rows = ENCODING.rows(np.random.default_rng(2).random((5, ENCODING.width)))
    assert np.allclose(BELIEF.bonus(rows, 50), BELIEF.bonus(rows, 5) / 10.0)
    assert np.isfinite(BELIEF.bonus(rows, 0)).all()


def test_the_start_is_near_the_default_and_a_wrong_default_is_left() -> None:
    """Given the best setting is far from the default, proposals get there."""
    space = Space.of(Float("x", 0.0, 1.0), Float("y", 0.0, 1.0))
    problem = Problem(
        space, Goal.MINIMIZE, max_epochs=1, max_trials=40, seed=3, defaults={"x": 0.1, "y": 0.1}, metric="loss"
    )
    seen: list[Observation] = []
    for index in range(40):
        (proposal,) = propose(problem, seen, [], 1, index=index)
        x, y = float(str(proposal.configuration["x"])), float(str(proposal.configuration["y"]))
        seen.append(Observation(proposal.configuration, (x - 0.9) ** 2 + (y - 0.8) ** 2))
    assert seen[0].configuration == {"x": 0.1, "y": 0.1}
    early = [float(str(one.configuration["x"])) for one in seen[1:4]]
    assert np.mean(early) < 0.5
    assert min(float(str(one.value)) for one in seen) < 1e-3


@pytest.mark.parametrize("proposer", [ProposerName.QUASIRANDOM, ProposerName.RANDOM])
def test_who_asks_for_chance_gets_it(proposer: ProposerName) -> None:
    space = Space.of(Float("x", 0.0, 1.0), Float("y", 0.0, 1.0))
    plain = Problem(space, Goal.MINIMIZE, max_epochs=1, max_trials=9, seed=3, proposer=proposer)
    known = Problem(
        space, Goal.MINIMIZE, max_epochs=1, max_trials=9, seed=3, proposer=proposer, defaults={"x": 0.1, "y": 0.1}
    )
    one, other = propose(plain, [], [], 4, index=1), propose(known, [], [], 4, index=1)
    assert all(proposal.origin is not Origin.DEFAULT for proposal in other)
    assert [proposal.configuration for proposal in one] == [proposal.configuration for proposal in other]
