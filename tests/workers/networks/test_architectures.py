"""What the networks compute."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from foretune.errors import InvalidConfiguration
from foretune.wire.datasets import Task
from workers.networks import DataShape, get_network
from workers.networks.dropout import active_dropouts, set_noise
from workers.networks.gru import GRULayer

TABLE = DataShape(Task.CLASSIFICATION, (7,), 3)
SEQUENCE = DataShape(Task.REGRESSION, (9, 4), 1)
TEXT = DataShape(Task.LANGUAGE_MODELLING, (), 11)
DRAWS = torch.Generator().manual_seed(0)
KINDS = [
    ("mlp", TABLE, torch.randn(5, 7, generator=DRAWS)),
    ("cnn", DataShape(Task.CLASSIFICATION, (2, 8, 8), 3), torch.randn(5, 2, 8, 8, generator=DRAWS)),
    ("gru", SEQUENCE, torch.randn(5, 9, 4, generator=DRAWS)),
    ("gru", TEXT, torch.randint(11, (5, 8), generator=DRAWS)),
    ("transformer", SEQUENCE, torch.randn(5, 9, 4, generator=DRAWS)),
    ("transformer", TEXT, torch.randint(11, (5, 8), generator=DRAWS)),
]
kinds = pytest.mark.parametrize(("name", "shape", "x"), KINDS)


def built(name, shape, **configuration):
    network = get_network(name)
    torch.manual_seed(0)
    return network.build(network.resolve({"width": 16, **configuration}), shape)


@kinds
def test_outputs_have_the_promised_shape(name, shape, x):
    outputs = built(name, shape)(x)
    expected = (5, 8, 11) if shape is TEXT else (5, shape.output_size)
    assert outputs.shape == expected
    assert torch.isfinite(outputs).all()


@kinds
def test_every_parameter_gets_a_gradient(name, shape, x):
    module = built(name, shape, depth=2)
    # Blocks begin as the identity, so what precedes a zero weight gets its gradient only after the first update.
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    module(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


# torch steps through the members for its fused attention, and says so.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@kinds
def test_members_stack_and_give_what_each_gives_alone(name, shape, x):
    # Given three networks of one architecture, with noise and dropout rates of their own
    members = [built(name, shape, dropout=rate) for rate in (0.1, 0.3, 0.5)]
    for position, member in enumerate(members):
        set_noise(active_dropouts(member), position)
        member.train()

    # When they are stacked
    parameters, buffers = stack_module_state(members)

    def loss(parameters, buffers, x):
        return functional_call(members[0], (parameters, buffers), (x,)).square().mean()

    stacked = vmap(grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)

    # Then each has the gradient that it has alone
    for position, member in enumerate(members):
        member(x).square().mean().backward()
        for parameter_name, parameter in member.named_parameters():
            torch.testing.assert_close(stacked[parameter_name][position], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 8, 13), (4, 28, 28), (1, 65, 70), (3, 150, 224)])
def test_cnn_takes_images_of_any_size(size):
    module = built("cnn", DataShape(Task.CLASSIFICATION, size, 5), width=8)
    assert module(torch.randn(2, *size)).shape == (2, 5)


def test_cnn_sees_every_pixel():
    for side in (8, 65, 130):
        module = built("cnn", DataShape(Task.REGRESSION, (1, side, side), 1), width=8)
        image = torch.randn(1, 1, side, side, requires_grad=True)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        module(image).sum().backward()
        assert (image.grad != 0).all()


def test_cnn_says_what_it_needs():
    with pytest.raises(InvalidConfiguration, match="at least 8x8 pixels, not 7x12"):
        built("cnn", DataShape(Task.CLASSIFICATION, (1, 7, 12), 5))


@pytest.mark.parametrize("width", [1, 7, 13, 20, 64])
def test_cnn_takes_any_width(width):
    module = built("cnn", DataShape(Task.CLASSIFICATION, (1, 8, 8), 5), width=width)
    assert module(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_the_gru_layer_is_torchs():
    ours, theirs = GRULayer(5, 6), nn.GRU(5, 6, batch_first=True)
    theirs.load_state_dict({f"{name}_l0": tensor for name, tensor in ours.state_dict().items()})
    with torch.no_grad():
        theirs.bias_hh_l0.normal_()
        ours.bias_hh.copy_(theirs.bias_hh_l0)
    x = torch.randn(3, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x)[0])


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_language_models_do_not_see_the_future(name):
    module = built(name, TEXT).eval()
    tokens = torch.randint(11, (2, 20))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 11
    before, after = module(tokens), module(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_a_transformers_heads_need_not_divide_its_width():
    module = built("transformer", TEXT, width=10, heads=4)
    assert module(torch.randint(11, (2, 6))).shape == (2, 6, 11)


@kinds
def test_signals_begin_neither_dead_nor_loud(name, shape, x):
    # Given a deep network of the default kind
    torch.manual_seed(0)
    module = built(name, shape, depth=4, width=64).eval()

    # When it sees standardised rows
    outputs = module(x)

    # Then what comes out is of the order of one
    assert 0.05 < outputs.std().item() < 5.0
