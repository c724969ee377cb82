"""The ordinary way to train: one trial after the other, by autograd. It can step any network, and sets the pace that
stacked members have to beat.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.engine import streams
from workers.engine.device import autocast
from workers.engine.evaluation import evaluate, training_loss
from workers.engine.slot import Slot
from workers.networks.dropout import set_noise


class PlainLoop:
    """Steps the members in turn; see `Way`."""

    name = "loop"

    def bind(self, members: Sequence[Slot]) -> None:
        for member in members:
            member.module.train()

    def begin_epochs(self, members: Sequence[Slot]) -> None:
        """Nothing is prepared."""

    def step(self, members: Sequence[Slot]) -> Tensor:  # (1, n)
        return torch.stack([_step(member) for member in members]).unsqueeze(0)

    def evaluate(self, members: Sequence[Slot]) -> list[dict[str, float]]:
        return [_evaluate(member) for member in members]


def _step(slot: Slot) -> Tensor:  # ()
    """One update; its loss, still on the device."""
    data, settings = slot.data, slot.settings
    noise = slot.noise
    streams.seed_global(noise, data.device)
    set_noise(slot.dropouts, noise)
    inputs, targets = slot.batches.batch(slot.position)
    with autocast(data.device, slot.precision):
        outputs = slot.module(inputs)
    loss = training_loss(outputs, targets, data.prepared.task, settings.label_smoothing)
    gradient = slot.flat.gradient
    gradient.zero_()
    (loss if slot.scale is None else loss * slot.scale.scale).backward()  # type: ignore[no-untyped-call]
    if slot.scale is None or slot.scale.unscale(gradient):
        slot.apply(slot.learning_rates(1)[0], slot.update + 1)
    return loss.detach()


def _evaluate(slot: Slot) -> dict[str, float]:
    module = slot.module.eval()
    try:
        with torch.inference_mode(), autocast(slot.data.device, slot.precision):
            (metrics,) = evaluate(
                lambda inputs: module(inputs).unsqueeze(0),
                slot.data,
                slot.data.val_x,
                context_length=slot.context_length,
            )
        return metrics
    finally:
        module.train()
