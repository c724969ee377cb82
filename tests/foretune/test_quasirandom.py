"""The additive recurrence R_d: its constants, and that it fills space better than chance."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from foretune.quasirandom import r_sequence

SIZES = st.integers(1, 30)


def steps(dimensions: int) -> list[float]:
    first, second = r_sequence(dimensions, start=0, count=2, seed=0)
    return [(after - before) % 1.0 for before, after in zip(first, second, strict=True)]


def test_in_one_dimension_it_steps_by_the_golden_ratio() -> None:
    assert steps(1) == pytest.approx([(math.sqrt(5) - 1) / 2])


def test_in_two_dimensions_it_steps_by_the_plastic_number() -> None:
    plastic = 1.3247179572447460
    assert steps(2) == pytest.approx([1 / plastic, 1 / plastic**2])


@pytest.mark.parametrize("dimensions", [1, 3, 10, 100])
def test_the_root_solves_its_equation(dimensions: int) -> None:
    phi = 1 / steps(dimensions)[0]
    assert phi ** (dimensions + 1) == pytest.approx(phi + 1)


@given(SIZES, st.integers(0, 10**6), SIZES, st.integers(0, 2**31 - 1))
def test_any_stretch_of_it_can_be_asked_for(dimensions: int, start: int, count: int, seed: int) -> None:
    whole = r_sequence(dimensions, start=start, count=count + 3, seed=seed)
    assert r_sequence(dimensions, start=start + 3, count=count, seed=seed) == whole[3:]
    assert len(whole) == count + 3
    assert all(len(point) == dimensions and all(0.0 <= u < 1.0 for u in point) for point in whole)


def test_each_seed_is_another_sequence() -> None:
    assert r_sequence(2, start=0, count=5, seed=1) != r_sequence(2, start=0, count=5, seed=2)


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_it_is_spread_more_evenly_than_random_points(dimensions: int) -> None:
    generator = random.Random(0)
    chance = [qmc.discrepancy([[generator.random() for _ in range(dimensions)] for _ in range(64)]) for _ in range(20)]
    spread = [qmc.discrepancy(r_sequence(dimensions, start=0, count=64, seed=seed)) for seed in range(20)]
    assert median(spread) < 0.6 * median(chance)
