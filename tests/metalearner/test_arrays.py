"""Ranks, against SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import rankdata

from metalearner.arrays import Array, ranks


@given(arrays(float, array_shapes(max_dims=3, max_side=7), elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])))
def test_equal_values_share_the_mean_rank(values: Array) -> None:
    assert np.array_equal(ranks(values), rankdata(values, axis=-1))


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_of_nothing(shape: tuple[int, int]) -> None:
    assert ranks(np.empty(shape)).shape == shape
