"""Where parameters lie in a row of numbers."""

import math

import torch

from workers.engine.layout import layout


def test_rows_are_packed_and_unpacked():
    parts = layout([("a", (3, 5)), ("b", (7,)), ("c", ())], {"a": (16, 16)})
    assert parts.size % 32 == 0
    assert all(part.offset % 16 == 0 for part in parts.parts)
    row = torch.zeros(parts.size)
    packed = torch.arange(1.0, 24.0)
    parts.unpack(packed, row)
    assert torch.equal(parts.pack(row), packed)
    assert torch.count_nonzero(row) == 23
    assert parts.views(row[None])["a"].shape == (1, 16, 16)
    assert math.prod(parts.parameters(row)[0].shape) == 15
