"""How the members of a population are stepped: one after the other, or stacked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from workers.engine import optimizers
from workers.engine.device import is_out_of_memory
from workers.engine.evaluation import evaluate
from workers.engine.rows import Rows
from workers.engine.slot import Slot
from workers.engine.stacking import Noise, Program, StackedBatch


class StepFailed(Exception):
    """Members could not be computed together; nothing was changed. The cause says why."""

    @property
    def out_of_memory(self) -> bool:
        return isinstance(self.__cause__, Exception) and is_out_of_memory(self.__cause__)


class Way(Protocol):
    """Makes updates of all members of a population. Members may be at any epoch and update."""

    name: str

    def bind(self, members: Sequence[Slot]) -> None:
        """Called when the members have changed, before the next step."""

    def step(self, members: Sequence[Slot]) -> Tensor:  # (n,)
        """One update of each member; the losses, still on the device. Nobody's position is changed."""

    def evaluate(self, members: Sequence[Slot]) -> list[dict[str, float]]:
        """The validation metrics of some of the members, in their order."""


class Stacked:
    """Computes the members, who live in `rows`, with one stacked program."""

    name = "stacked"

    def __init__(self, program: Program, rows: Rows) -> None:
        self._program, self._rows = program, rows
        self._smoothing: Tensor | None = None
        self._thresholds: Tensor | None = None
        self._scale_bits: Tensor | None = None
        self._steps = torch.empty(0)
        self._row_weights: dict[tuple[int, ...], Tensor] = {}

    def bind(self, members: Sequence[Slot]) -> None:
        n, weights = len(members), self._rows.weights
        device = weights.device
        self._program.bind(weights[:n], self._rows.gradient[:n])
        self._steps = torch.arange(members[0].batches.bucket, device=device)
        self._row_weights = {}
        smoothing = [member.settings.label_smoothing for member in members]
        self._smoothing = weights.new_tensor(smoothing).view(n, 1, 1) if any(smoothing) else None
        layers = max(len(member.dropouts) for member in members)
        self._thresholds = self._scale_bits = None
        if layers:
            self._thresholds = _per_layer(members, layers, "threshold", -1).to(device)
            self._scale_bits = _per_layer(members, layers, "scale_bits", _ONE_BITS).to(device)

    def step(self, members: Sequence[Slot]) -> Tensor:
        with torch.no_grad():
            try:
                losses = self._program.gradients(self._batch(members))
            except Exception as error:
                raise StepFailed(str(error)) from error
            for member in members:
                optimizers.update(
                    member.flat.weights,
                    member.flat.gradient,
                    member.state,
                    member.settings,
                    member.learning_rate,
                    member.update + 1,
                )
        return losses

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

    def _batch(self, members: Sequence[Slot]) -> StackedBatch:
        places = torch.stack([member.batches.places(member.position) for member in members])
        counts = tuple([member.batches.count(member.position) for member in members])
        if counts not in self._row_weights:
            rows = self._rows.weights.new_tensor(counts).unsqueeze(1)
            self._row_weights[counts] = (self._steps < rows) / rows
        noise = None
        if self._thresholds is not None and self._scale_bits is not None:
            layers = len(self._thresholds)
            # A member without dropout needs no key: nothing of it falls below its threshold.
            keys = [member.noise_keys if member.dropouts else _NO_KEYS.expand(layers) for member in members]
            stacked = torch.stack(keys, 1).view(layers, -1, 1, 1).to(self._thresholds.device)
            noise = Noise(stacked, self._thresholds, self._scale_bits)
        return StackedBatch(places, self._row_weights[counts], self._smoothing, noise)


_ONE_BITS = int(torch.ones(()).view(torch.int32))
_NO_KEYS = torch.zeros(1, dtype=torch.int32)


def _per_layer(members: Sequence[Slot], layers: int, buffer: str, without: int) -> Tensor:  # (L, n, 1, 1)
    columns = [
        [int(getattr(layer, buffer)) for layer in member.dropouts] if member.dropouts else [without] * layers
        for member in members
    ]
    return torch.tensor(columns, dtype=torch.int32).t().contiguous().view(layers, -1, 1, 1)
