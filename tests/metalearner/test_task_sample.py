"""Samples travel as words."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metalearner.task_sample import ELEMENTS, FEATURE, NUMBERS, decode, encode


@given(
    arrays.arrays(
        np.float64, st.tuples(st.integers(1, ELEMENTS), st.just(NUMBERS)), elements=st.floats(-5.25, 5.25, width=32)
    )
)
def test_what_was_encoded_is_decoded_within_half_a_step(
    elements: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    found = decode({FEATURE: encode(elements)})
    assert found is not None
    np.testing.assert_allclose(found, elements, atol=0.5 / 24 + 1e-9)
    assert encode(found) == encode(elements)


def test_what_is_no_number_is_nothing_or_an_end() -> None:
    found = decode({FEATURE: encode(np.array([[np.nan, np.inf, -np.inf, 100.0, -100.0, 0.0, 1.0, -1.0]]))})
    assert found is not None
    np.testing.assert_allclose(found[0], np.array([0, 127, -127, 127, -127, 0, 24, -24]) / 24)


@pytest.mark.parametrize(
    "word",
    ["", "café", "AAA", base64.b64encode(b"1234567").decode(), base64.b64encode(b"8" * 1024).decode(), 3.0, None],
)
def test_other_words_are_no_sample(word: float | str | None) -> None:
    assert decode({} if word is None else {FEATURE: word}) is None
