"""What a network costs."""

import pytest

from foretune.wire.datasets import Task
from workers.engine import cost
from workers.engine.device import choose_precision
from workers.networks import DataShape, get_network


def test_an_mlps_cost_is_counted_by_hand():
    shape = DataShape(Task.CLASSIFICATION, (64,), 10)
    found = cost(get_network("mlp"), {"width": 32, "depth": 2}, shape)
    assert found.parameters == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert found.forward_flops == 2 * (64 * 32 + 32 * 32 + 32 * 10)
    assert found.update_flops(128) == 3 * 128 * found.forward_flops


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cnn", DataShape(Task.CLASSIFICATION, (3, 32, 32), 10)),
        ("gru", DataShape(Task.LANGUAGE_MODELLING, (), 80)),
        ("transformer", DataShape(Task.LANGUAGE_MODELLING, (), 80)),
    ],
)
def test_a_wider_network_costs_more(name, shape):
    narrow, wide = (cost(get_network(name), {"width": width}, shape) for width in (32, 64))
    assert wide.parameters > 2 * narrow.parameters
    assert wide.forward_flops > 1.9 * narrow.forward_flops


def test_a_cpu_never_casts():
    import torch

    assert choose_precision(torch.device("cpu"), 1e15) == "float32"
