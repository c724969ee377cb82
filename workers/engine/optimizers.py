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

`update_together` is one update of many rows with different optimizers, for devices on which calls cost more than
memory. On a CPU the fused kernels are faster (measured with Adam, 8 to 16 rows, microseconds a row: 4 to 6 against 5
to 6 at 3,500 weights, 15 against 38 at 27,000, 56 against 190 at 102,000).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.engine.settings import TrainingSettings
from workers.networks import OptimizerName

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


def update(
    weights: Tensor,  # (P,)
    gradient: Tensor,  # (P,)
    state: Mapping[str, Tensor],  # each (P,)
    settings: TrainingSettings,
    learning_rate: float,
    number: int,
) -> None:
    """One update in place of the weights and the state; the gradient is used up. `number` counts from 1."""
    if settings.gradient_clip > 0.0:
        clip(gradient, settings.gradient_clip)
    if weights.device.type == "cpu":
        _fused(weights, gradient, state, settings, learning_rate, number)
        return
    if settings.weight_decay > 0.0:
        if settings.optimizer == "adamw":
            weights.mul_(1.0 - learning_rate * settings.weight_decay)
        else:
            gradient.add_(weights, alpha=settings.weight_decay)
    if settings.optimizer == "sgd":
        _sgd(weights, gradient, state["momentum"], settings, learning_rate)
    else:
        _adam(weights, gradient, state["first_moment"], state["second_moment"], settings, learning_rate, number)


def _fused(
    weights: Tensor,
    gradient: Tensor,
    state: Mapping[str, Tensor],
    settings: TrainingSettings,
    learning_rate: float,
    number: int,
) -> None:
    if settings.optimizer == "sgd":
        torch._fused_sgd_(
            [weights],
            [gradient],
            [state["momentum"]] if settings.momentum > 0.0 else [],
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        return
    (torch._fused_adam_ if settings.optimizer == "adam" else torch._fused_adamw_)(
        [weights],
        [gradient],
        [state["first_moment"]],
        [state["second_moment"]],
        [],
        [torch.scalar_tensor(number)],
        lr=learning_rate,
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
        amsgrad=False,
        maximize=False,
    )


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
