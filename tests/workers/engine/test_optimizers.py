"""The optimizers against torch's own."""

import pytest
import torch

from workers.engine import optimizers
from workers.engine.settings import TrainingSettings

UPDATES = 25


def settings(**changed):
    values = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "batch_size": 32,
        "label_smoothing": 0.0,
        "gradient_clip": 0.0,
        "context_length": 64,
    }
    return TrainingSettings(**{**values, **changed})


def theirs(chosen: TrainingSettings, parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
    if chosen.optimizer == "sgd":
        return torch.optim.SGD([parameter], 0.1, momentum=chosen.momentum, weight_decay=chosen.weight_decay, fused=True)
    kind = torch.optim.Adam if chosen.optimizer == "adam" else torch.optim.AdamW
    betas = (chosen.beta1, chosen.beta2)
    return kind([parameter], 0.1, betas=betas, eps=chosen.epsilon, weight_decay=chosen.weight_decay, fused=True)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_updates_are_those_of_torch_bit_for_bit(optimizer, momentum, weight_decay, clip):
    # Given the same weights, and a learning rate that changes at every update
    chosen = settings(optimizer=optimizer, momentum=momentum, weight_decay=weight_decay, gradient_clip=clip)
    draws = torch.Generator().manual_seed(3)
    weights = torch.randn(101, generator=draws)
    parameter = torch.nn.Parameter(weights.clone())
    reference = theirs(chosen, parameter)
    state = optimizers.initial_state(chosen.optimizer, weights)
    own_gradient = torch.zeros(101)
    update = optimizers.updater(weights, own_gradient, state, chosen)

    # When both take the same gradients
    for number in range(1, UPDATES + 1):
        gradient = torch.randn(101, generator=draws)
        learning_rate = 0.1 / number
        parameter.grad = gradient.clone()
        if clip > 0.0:
            torch.nn.utils.clip_grad_norm_([parameter], clip)
        reference.param_groups[0]["lr"] = learning_rate
        reference.step()
        own_gradient.copy_(gradient)
        update(learning_rate, number)

        # Then the weights stay equal
        assert torch.equal(weights, parameter.detach())


def test_decay_passes_through_adams_moments_but_not_through_adamws():
    # Given weights of one and no gradient
    decayed = {}
    for optimizer in ("adam", "adamw"):
        weights = torch.ones(3)
        chosen = settings(optimizer=optimizer, weight_decay=0.5)
        state = optimizers.initial_state(optimizer, weights)

        # When one update is made at a learning rate of 0.1
        optimizers.updater(weights, torch.zeros(3), state, chosen)(0.1, 1)
        decayed[optimizer] = weights[0].item()

    # Then AdamW shrinks by lr * wd, while Adam takes a whole normalised step of lr
    assert decayed["adamw"] == pytest.approx(0.95)
    assert decayed["adam"] == pytest.approx(0.9, abs=1e-6)


def test_clipping_leaves_a_small_gradient_and_shortens_a_long_one():
    short, long = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0])
    optimizers.clip(short, 1.0)
    optimizers.clip(long, 1.0)
    assert short.tolist() == pytest.approx([0.3, 0.4])
    assert long.norm().item() == pytest.approx(1.0, abs=1e-5)
