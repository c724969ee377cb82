"""Optimizers as functions over one flat vector of weights.

Symbols: P weights; g gradient (P,); t number of the update, from 1; lr learning rate; wd weight decay.

    SGD     g' = g + wd w      m = momentum m + g'      w = w - lr m
    Adam    g' = g + wd w      (L2: the decay passes through the moments; Kingma & Ba 2015)
    AdamW   w  = w - lr wd w   (decoupled: the decay does not; Loshchilov & Hutter 2019), g' = g
            m = b1 m + (1 - b1) g'    v = b2 v + (1 - b2) g'^2    w = w - lr m^ / (sqrt(v^) + eps)
            with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t)

On a CPU these are the fused kernels of `torch.optim(fused=True)`, one pass over memory each; elsewhere the operations
of `torch.optim(foreach=False)` in their order: the results are those of torch bit for bit. A trial's parameters are
views of one vector, so an update is one call, however many layers there are, and it reads nothing but the trial's own
row: the same wherever the row stands, alone or in a population.

One vectorised update of many rows was slower on a CPU than these kernels row by row: it needs eight passes over memory
(measured with Adam, 8 to 16 rows, microseconds a row: 5 to 6 against 4 to 6 at 3,500 weights, 38 against 15 at 27,000,
190 against 56 at 102,000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeAlias

import torch
from torch import Tensor

from workers.engine.settings import TrainingSettings
from workers.networks import OptimizerName

Update: TypeAlias = Callable[[float, int], None]
"""Called with the learning rate and the number of the update."""

STATE_NAMES: Mapping[OptimizerName, tuple[str, ...]] = {
    "sgd": ("momentum",),
    "adam": ("first_moment", "second_moment"),
    "adamw": ("first_moment", "second_moment"),
}
"""The vectors (P,) that each optimizer keeps; all begin at zero."""


def initial_state(optimizer: OptimizerName, weights: Tensor) -> dict[str, Tensor]:  # (P,) -> each (P,)
    return {name: torch.zeros_like(weights) for name in STATE_NAMES[optimizer]}


def clip(gradient: Tensor, largest_norm: float) -> None:  # (P,)
    """Scales the gradient in place so that its norm is at most `largest_norm`; see torch's clip_grad_norm_."""
    gradient.mul_((largest_norm / (gradient.norm() + 1e-6)).clamp_(max=1.0))


def updater(
    weights: Tensor,  # (P,)
    gradient: Tensor,  # (P,)
    state: Mapping[str, Tensor],  # each (P,)
    settings: TrainingSettings,
) -> Update:
    """What makes one update in place of the weights and the state, called with the learning rate and the number of the
    update, from 1. It uses the gradient up.
    """
    if weights.device.type == "cpu":
        make = _fused_sgd if settings.optimizer == "sgd" else _fused_adam
        apply = make(weights, gradient, state, settings)
    else:
        apply = partial(_plain, weights, gradient, state, settings)
    if settings.gradient_clip == 0.0:
        return apply

    def clipped(learning_rate: float, number: int) -> None:
        clip(gradient, settings.gradient_clip)
        apply(learning_rate, number)

    return clipped


def _fused_sgd(weights: Tensor, gradient: Tensor, state: Mapping[str, Tensor], settings: TrainingSettings) -> Update:
    momentum = [state["momentum"]] if settings.momentum > 0.0 else []
    options = {"weight_decay": settings.weight_decay, "momentum": settings.momentum, "dampening": 0.0}
    flags = {"nesterov": False, "maximize": False, "is_first_step": False}
    kernel = partial(torch._fused_sgd_, [weights], [gradient], momentum, **options, **flags)
    return lambda learning_rate, _: kernel(lr=learning_rate)


def _fused_adam(weights: Tensor, gradient: Tensor, state: Mapping[str, Tensor], settings: TrainingSettings) -> Update:
    kernel = partial(
        torch._fused_adam_ if settings.optimizer == "adam" else torch._fused_adamw_,
        [weights],
        [gradient],
        [state["first_moment"]],
        [state["second_moment"]],
        [],
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
        amsgrad=False,
        maximize=False,
    )

    def apply(learning_rate: float, number: int) -> None:
        kernel([_count(number)], lr=learning_rate)

    return apply


@lru_cache(maxsize=4096)
def _count(number: int) -> Tensor:  # ()
    """A number as the fused kernels want to read it; one tensor for all members that come by."""
    return torch.full((), float(number))


def _plain(
    weights: Tensor,
    gradient: Tensor,
    state: Mapping[str, Tensor],
    settings: TrainingSettings,
    learning_rate: float,
    number: int,
) -> None:
    if settings.weight_decay > 0.0:
        if settings.optimizer == "adamw":
            weights.mul_(1.0 - learning_rate * settings.weight_decay)
        else:
            gradient.add_(weights, alpha=settings.weight_decay)
    if settings.optimizer == "sgd":
        _sgd(weights, gradient, state["momentum"], settings, learning_rate)
    else:
        _adam(weights, gradient, state["first_moment"], state["second_moment"], settings, learning_rate, number)


def _sgd(weights: Tensor, gradient: Tensor, momentum: Tensor, settings: TrainingSettings, learning_rate: float) -> None:
    if settings.momentum > 0.0:
        gradient = momentum.mul_(settings.momentum).add_(gradient)
    weights.add_(gradient, alpha=-learning_rate)


def _adam(
    weights: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    settings: TrainingSettings,
    learning_rate: float,
    number: int,
) -> None:
    first.lerp_(gradient, 1.0 - settings.beta1)
    second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1.0 - settings.beta2)
    correction1 = 1.0 - settings.beta1**number
    correction2 = 1.0 - settings.beta2**number
    denominator = (second.sqrt() / correction2**0.5).add_(settings.epsilon)
    weights.addcdiv_(first, denominator, value=-learning_rate / correction1)
