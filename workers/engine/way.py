"""How the members of a population are stepped: one after the other, or stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from workers.engine.device import is_out_of_memory
from workers.engine.evaluation import evaluate
from workers.engine.rows import Rows
from workers.engine.slot import Slot
from workers.engine.stacking import Noise, Program, StackedBatch
from workers.networks.dropout import KEEP_ALL

_LONGEST_PLAN = 64


class StepFailed(Exception):
    """Members could not be computed together; nothing was changed. The cause says why."""

    @property
    def out_of_memory(self) -> bool:
        return isinstance(self.__cause__, Exception) and is_out_of_memory(self.__cause__)


class Way(Protocol):
    """Makes updates of all members of a population. Members may be at any epoch and update."""

    name: str

    def bind(self, members: Sequence[Slot]) -> None:
        """Called when the members have changed, before the next step and before `begin_epochs`."""

    def begin_epochs(self, members: Sequence[Slot]) -> None:
        """Called when the members have changed, or one of them has begun an epoch."""

    def step(self, members: Sequence[Slot]) -> Tensor:  # (R, n)
        """One update of each member, or some of the same epoch; the losses, still on the device. Nobody's position is
        changed.
        """

    def evaluate(self, members: Sequence[Slot]) -> list[dict[str, float]]:
        """The validation metrics of some of the members, in their order."""


@dataclass(frozen=True)
class _Plan:
    """What the steps until somebody's next epoch need, made at once: R steps, n members, L dropout layers."""

    places: Tensor  # (R, n, B)
    row_weights: Tensor  # (R, n, B)
    keys: Tensor | None  # (R, 2, L, n, 1, 1)
    learning_rates: list[tuple[float, ...]]  # R of n


class Stacked:
    """Computes the members, who live in `rows`, with one stacked program."""

    name = "stacked"

    def __init__(self, program: Program, rows: Rows) -> None:
        self._program, self._rows = program, rows
        self._smoothing: Tensor | None = None
        self._thresholds: Tensor | None = None
        self._scale_bits: Tensor | None = None
        self._plan: _Plan | None = None
        self._at = 0

    def bind(self, members: Sequence[Slot]) -> None:
        n, weights = len(members), self._rows.weights
        device = weights.device
        self._program.bind(weights[:n], self._rows.gradient[:n])
        smoothing = [member.settings.label_smoothing for member in members]
        self._smoothing = weights.new_tensor(smoothing).view(n, 1, 1) if any(smoothing) else None
        layers = max(len(member.dropouts) for member in members)
        self._thresholds = self._scale_bits = None
        if layers:
            self._thresholds = _per_layer(members, layers, "threshold", KEEP_ALL).to(device)
            self._scale_bits = _per_layer(members, layers, "scale_bits", _ONE_BITS).to(device)

    def begin_epochs(self, members: Sequence[Slot]) -> None:
        steps = min(_LONGEST_PLAN, *(member.left for member in members))
        places = torch.stack([member.batches.places[_next(member, steps)] for member in members], 1)
        counts = self._rows.weights.new_tensor([member.batches.counts[_next(member, steps)] for member in members])
        rows = counts.t().unsqueeze(2)  # (R, n, 1)
        row_weights = (torch.arange(places.shape[2], device=rows.device) < rows) / rows
        keys = None
        if self._thresholds is not None:
            layers = len(self._thresholds)
            # A member without dropout needs no key: nothing of it falls below its threshold.
            own = [
                member.noise_keys()[_next(member, steps)] if member.dropouts else _NO_KEYS.expand(steps, layers, 2)
                for member in members
            ]
            keys = torch.stack(own, 3).transpose(1, 2)  # from (R, L, 2, n)
            keys = keys.reshape(steps, 2, layers, -1, 1, 1).to(rows.device)
        rates = list(zip(*(member.learning_rates(steps) for member in members), strict=True))
        self._plan, self._at = _Plan(places, row_weights, keys, rates), 0

    def step(self, members: Sequence[Slot]) -> Tensor:
        plan, at = self._plan, self._at
        if plan is None or at == len(plan.learning_rates):
            self.begin_epochs(members)
            return self.step(members)
        self._at += 1
        noise = None
        if plan.keys is not None and self._thresholds is not None and self._scale_bits is not None:
            noise = Noise(plan.keys[at], self._thresholds, self._scale_bits)
        batch = StackedBatch(plan.places[at], plan.row_weights[at], self._smoothing, noise)
        with torch.no_grad():
            try:
                losses = self._program.gradients(batch)
            except Exception as error:
                self._at = at
                raise StepFailed(str(error)) from error
            for member, learning_rate in zip(members, plan.learning_rates[at], strict=True):
                member.apply(learning_rate, member.update + 1)
        return losses.unsqueeze(0)

    def evaluate(self, members: Sequence[Slot]) -> list[dict[str, float]]:
        data, program = members[0].data, self._program
        metrics = []
        try:
            with torch.no_grad():
                for weights in self._runs(members):
                    metrics += evaluate(
                        partial(program.outputs, weights),
                        data,
                        program.val_x,
                        context_length=members[0].context_length,
                        largest_chunk=program.largest_chunk,
                    )
        except Exception as error:
            raise StepFailed(str(error)) from error
        return metrics

    def _runs(self, members: Sequence[Slot]) -> list[Tensor]:
        """The rows of these members: all of one piece when they are neighbours, else one by one."""
        weights, size = self._rows.weights, self._rows.weights.shape[1]
        first = members[0].flat.weights.storage_offset() // size
        rows = [member.flat.weights.storage_offset() // size for member in members]
        if rows == list(range(first, first + len(rows))):
            return [weights[first : first + len(rows)]]
        return [weights[row : row + 1] for row in rows]


_ONE_BITS = int(torch.ones(()).view(torch.int32))
_NO_KEYS = torch.ones(1, dtype=torch.int32)


def _next(member: Slot, steps: int) -> slice:
    """Its next updates, within the epoch."""
    return slice(member.position, member.position + steps)


def _per_layer(members: Sequence[Slot], layers: int, buffer: str, without: int) -> Tensor:  # (L, n, 1, 1)
    columns = [
        [int(getattr(layer, buffer)) for layer in member.dropouts] if member.dropouts else [without] * layers
        for member in members
    ]
    return torch.tensor(columns, dtype=torch.int32).t().contiguous().view(layers, -1, 1, 1)
