"""The compiled loops of rows against the parameters themselves, plain formulas and counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import truncnorm

from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import Space
from metalearner import compiled_rows
from metalearner.encoding import Encoding, is_among
from metalearner.expert import Belief

SPACE = Space.of(
    Float("rate", 1e-4, 1.0, log=True),
    Float("share", 0.0, 1.0, step=0.25),
    Int("width", 1, 64, log=True),
    Int("many", 0, 10_000),
    Categorical("kind", ["a", "b", "c"]),
    Categorical("size", ["s", "m", "l"], ordered=True),
    Bool("flag"),
    Float("momentum", 0.0, 1.0, when={"kind": ["a", "c"]}),
    Int("depth", 1, 5, when={"flag": [True]}),
    Categorical("only", ["one"]),
)
ENCODING = Encoding(SPACE)
POINTS = np.random.default_rng(0).random((3000, ENCODING.width))


def test_rows_are_those_of_the_configurations_that_the_parameters_have_there() -> None:
    expected = ENCODING.encode_all([SPACE.from_unit(point) for point in POINTS.tolist()])
    many = SPACE.slices["many"].start  # a grid too fine to be one: rounded at the end
    rows = ENCODING.rows(POINTS)
    np.testing.assert_allclose(np.delete(rows, many, axis=1), np.delete(expected, many, axis=1), atol=1e-9)
    assert np.isnan(rows).any(0).tolist() == [name in ("momentum", "depth") for name in SPACE.by_name]


def test_features_are_what_they_are_said_to_be() -> None:
    rows = ENCODING.rows(POINTS[:200])

    def columns(row: list[float]) -> list[float]:
        rate, share, width, many, kind, size, flag, momentum, depth, only = row
        kinds = [math.sqrt(0.5) if round(kind * 3 - 0.5) == place else 0.0 for place in range(3)]
        numbers = [0.5 if math.isnan(one) else one for one in (momentum, depth)]
        return [rate, share, width, many, *kinds, size, float(flag > 0.5), *numbers, only]

    np.testing.assert_allclose(ENCODING.features(rows), [columns(row) for row in rows.tolist()], atol=1e-12)


def test_a_row_is_among_others_where_it_is_as_good_as_one_of_them() -> None:
    rows = ENCODING.rows(POINTS[:300])
    for row in rows[:50]:
        assert is_among(row + 5e-7, rows)
        assert not is_among(row, rows[50:])
        moved = row.copy()
        moved[0] += 2e-6
        assert not is_among(moved, rows)
    inactive = rows[np.isnan(rows[:, 7])][0]
    active = np.where(np.isnan(inactive), 0.5, inactive)
    assert not is_among(active, rows)
    assert not is_among(inactive, np.where(np.isnan(rows), 0.5, rows))
    assert not is_among(rows[0], rows[:0])


def _draws(sizes: np.ndarray, seed: int) -> compiled_rows.Draws:
    generator, shape = np.random.default_rng(seed), (len(sizes), ENCODING.width)
    spread, turns, places = generator.random((3, *shape))
    hops = generator.choice([-2.0] * 3 + [-1.0] * 7 + [1.0] * 7 + [2.0] * 3, shape)
    sure = generator.integers(shape[1], size=shape[0])
    return compiled_rows.Draws(
        sizes, spread, turns, places, generator.random(shape[0]), sure, generator.standard_normal(shape), hops
    )


def _moved(start: np.ndarray, size: float, count: int, seed: int) -> np.ndarray:
    return compiled_rows.near(ENCODING.table, start[None, :], count, _draws(np.full(count, size), seed), 0)


def test_dimensions_move_as_often_and_as_far_as_is_meant() -> None:
    # Given many candidates from the middle of a space of ten dimensions
    count, size = 40_000, 0.01
    start = ENCODING.encode({"rate": 1e-2, "share": 0.5, "width": 8, "many": 5000, "kind": "b", "size": "m",
                             "flag": True, "depth": 3, "only": "one"})  # fmt: skip
    rows = _moved(start, size, count, 1)

    # Then half of them move one dimension in any case and others with 2/10, the others all: .5 (.1 + .9 · .2) + .5
    often = 0.5 * (0.1 + 0.9 * 0.2) + 0.5
    changed = np.abs(rows - start) > 1e-12
    rates = changed.mean(0)
    error = 4 * math.sqrt(0.25 / count)
    assert rates[[0, 3]] == pytest.approx(often, abs=error)
    # Ordered ones half as often, and a level at least
    assert rates[[1, 5]] == pytest.approx(often / 2, abs=error)
    levels = (rows[changed[:, 1], 1] - 0.5) / 0.25
    assert np.mean(np.abs(levels) > 1.5) == pytest.approx(0.3, abs=0.03)
    assert np.mean(levels > 0) == pytest.approx(0.5, abs=0.03)
    # Choices half as often, to any of them
    assert rates[4] == pytest.approx(often / 2 * 2 / 3, abs=error)
    assert rates[6] == pytest.approx(often / 2 / 2, abs=error)
    # Numbers by normal steps of the size; dimensions by themselves
    steps = (rows[changed[:, 0], 0] - start[0]) / size
    assert [steps.mean(), steps.std()] == pytest.approx([0.0, 1.0], abs=0.03)
    assert not changed[:, 9].any()
    # What becomes active gets a value anywhere
    momentum = rows[~np.isnan(rows[:, 7]), 7]
    assert np.quantile(momentum, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)


def test_walls_mirror() -> None:
    start = ENCODING.rows(np.zeros((1, ENCODING.width)))[0]
    rows = _moved(start, 0.1, 4000, 2)
    steps = rows[np.abs(rows[:, 0]) > 1e-12, 0]
    assert (steps > 0.0).all()
    assert np.mean(steps) == pytest.approx(0.1 * math.sqrt(2 / math.pi), abs=0.005)


def test_the_pool_is_points_and_moves_of_those_incumbents_that_were_chosen() -> None:
    generator = np.random.default_rng(3)
    incumbents, points = ENCODING.rows(generator.random((3, ENCODING.width))), generator.random((5, ENCODING.width))
    draws, chosen = _draws(np.full(400, 0.01), 4), np.array([2, 0] * 200)

    rows = compiled_rows.pool(ENCODING.table, points, incumbents, chosen, draws)

    np.testing.assert_array_equal(rows[:5], ENCODING.rows(points))
    for number in range(0, 400, 7):
        alone = compiled_rows.near(ENCODING.table, incumbents[chosen[number]][None, :], 1, draws, number)
        np.testing.assert_array_equal(rows[5 + number], alone[0])


def test_climbing_takes_the_best_of_a_starts_own_rows() -> None:
    starts, heights = np.array([[0.1], [0.2]]), np.array([1.0, 5.0])
    compiled_rows.climb(starts, heights, np.array([[0.3], [0.4], [0.5], [0.6]]), np.array([0.0, 2.0, 4.0, 3.0]))
    assert starts.tolist() == [[0.4], [0.2]]
    assert heights.tolist() == [2.0, 5.0]


def test_beliefs_are_a_truncated_normal_and_one_half_and_leave_a_tenth() -> None:
    default = ENCODING.encode({"rate": 1e-3, "width": 4, "kind": "b", "flag": True, "depth": 2})
    rows = ENCODING.rows(POINTS[:200])

    found = Belief(ENCODING, default).bonus(rows, 5)

    expected = np.zeros(len(rows))
    for j, levels in ((0, 0), (2, 0), (4, 3), (6, 2), (8, 0)):
        column, place = rows[:, j], default[j]
        if levels:
            density = np.where(np.abs(column - place) < 1e-9, 0.5, 0.5 / (levels - 1)) * levels
        else:
            normal = truncnorm((0 - place) / 0.2, (1 - place) / 0.2, loc=place, scale=0.2)
            density = 0.1 + 0.9 * normal.pdf(column)
        expected += np.where(np.isnan(column), 0.0, np.log(density))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
