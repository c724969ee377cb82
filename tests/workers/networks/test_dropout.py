"""Noise from keys."""

import pytest
import torch

from workers.networks import Dropout
from workers.networks.dropout import active_dropouts, layer_keys, set_noise


def kept(layer: Dropout, key: int, shape=(128, 128)) -> torch.Tensor:
    set_noise([layer], key)
    return layer(torch.ones(shape)) > 0


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_the_mean_preserved(rate):
    layer = Dropout(rate)
    set_noise([layer], 5)
    outputs = layer(torch.ones(1_000, 500))
    spread = (rate * (1 - rate) / outputs.numel()) ** 0.5
    assert (outputs == 0).float().mean().item() == pytest.approx(rate, abs=5 * spread)
    assert outputs.max().item() == pytest.approx(1 / (1 - rate), rel=1e-6)


def test_noise_is_a_function_of_the_key_and_the_place():
    layer, other = Dropout(0.3), Dropout(0.3)
    assert torch.equal(kept(layer, 1), kept(other, 1))
    assert not torch.equal(kept(layer, 1), kept(layer, 2))
    # A smaller batch of the same width has the same noise in its rows.
    assert torch.equal(kept(layer, 1, (128, 16))[:50], kept(layer, 1, (50, 16)))


def test_noise_of_keys_layers_and_neighbours_is_uncorrelated():
    # Given masks of many keys and layers, centred
    layers = [Dropout(0.25) for _ in range(4)]
    masks = []
    for key in range(100):
        set_noise(layers, key)
        masks += [((layer(torch.ones(64, 64)) > 0).double() - 0.75) / 0.1875**0.5 for layer in layers]
    stacked = torch.stack(masks).flatten(1)  # (400, 4096)

    # When each is compared with the others, and with itself moved by one place
    between = stacked @ stacked.T / stacked.shape[1] ** 0.5
    between = between[~torch.eye(len(stacked), dtype=torch.bool)]
    within = (stacked[:, 1:] * stacked[:, :-1]).sum(1) / stacked.shape[1] ** 0.5
    by_place = stacked.sum(0) / len(stacked) ** 0.5

    # Then the correlations are those of independent coins: standard normal
    for scores in (between, within, by_place):
        assert scores.mean().abs().item() < 0.2
        assert scores.std().item() == pytest.approx(1.0, abs=0.1)


def test_evaluation_and_a_rate_of_zero_change_nothing():
    x = torch.randn(4, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_gradients_pass_where_the_signal_passes():
    layer = Dropout(0.5)
    set_noise([layer], 3)
    x = torch.randn(10, 10, requires_grad=True)
    outputs = layer(x)
    outputs.sum().backward()
    assert torch.equal(x.grad, torch.where(outputs != 0, 2.0, 0.0))


def test_half_precision_stays_half_precision():
    layer = Dropout(0.5)
    assert layer(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_noise_is_no_part_of_the_weights():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), Dropout(0.5), Dropout(0.0))
    assert set(module.state_dict()) == {"0.weight", "0.bias"}
    assert active_dropouts(module) == [module[1]]


def test_keys_fill_32_bits_and_rates_beyond_reason_are_refused():
    multipliers, offsets = layer_keys(range(200), 5).flatten(0, 1).t().tolist()
    assert all(multiplier % 2 == 1 for multiplier in multipliers)
    for keys in (multipliers, offsets):
        assert len(set(keys)) == 1_000
        assert min(keys) < -(2**30) < 2**30 < max(keys)
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="rate must lie"):
            Dropout(rate)
