"""Which rows each update sees.

Axes: N rows of the training part, B rows of a batch, T steps of context, n tokens of a text.

An epoch visits every row once in a new random order, in ceil(N / batch_size) batches whose sizes differ by at most
one: no update is left with a few rows at the full learning rate. A text is cut into windows of `context_length`
tokens, from a new random offset each epoch.

Trials are stacked by the bucket of their batches: batches of the same bucket are padded to one size with rows that
weigh nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from foretune.errors import InvalidDataset
from workers.engine import streams
from workers.engine.layout import round_up

_SMALLEST_BUCKET = 4


class Batches(Protocol):
    """The training rows of one trial, in an order that depends on its seed and on the epoch alone."""

    updates_per_epoch: int
    counts: tuple[int, ...]
    """How many rows each update of an epoch has."""
    bucket: int
    """Rows of a padded batch."""

    def widen(self, multiple: int) -> int:
        """Makes the bucket a multiple of this power of two, and returns it."""

    def start_epoch(self, seed: int) -> None:
        """Draws the order of an epoch from the stream `seed`."""

    def batch(self, position: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the update at `position` (from 0) of the epoch, on the device."""

    @property
    def places(self) -> Tensor:  # (updates_per_epoch, bucket) int64
        """Where the rows of each update of the epoch begin in the data; those beyond its count repeat the last one."""


class RowBatches:
    """Batches of a table, of images or of sequences."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> None:
        # (N, …), (N,)
        self._x, self._y, self._device = x, y, device
        self.rows = x.shape[0]
        self.updates_per_epoch = math.ceil(self.rows / batch_size)
        self.counts = _counts(self.rows, self.updates_per_epoch)
        self.bucket = self.widen(1)
        self._order = torch.empty(0, dtype=torch.int64)
        self._places: Tensor | None = None

    def widen(self, multiple: int) -> int:
        self.bucket = padded_rows(max(self.counts), multiple)
        return self.bucket

    def start_epoch(self, seed: int) -> None:
        order = torch.randperm(self.rows, generator=streams.generator(seed))
        self._order, self._places = order.to(self._x.device), None

    @property
    def places(self) -> Tensor:
        if self._places is None or self._places.shape[1] != self.bucket:
            self._places = _places(self._order, self.updates_per_epoch, self.bucket)
        return self._places

    def batch(self, position: int) -> tuple[Tensor, Tensor]:  # (B, …), (B,)
        start, stop = bounds(self.rows, self.updates_per_epoch, position)
        chosen = self._order[start:stop]
        return _moved(self._x.index_select(0, chosen), self._device), _moved(
            self._y.index_select(0, chosen), self._device
        )


class TextBatches:
    """Batches of windows of a text; the targets are the inputs one token on."""

    def __init__(self, tokens: Tensor, batch_size: int, context_length: int, device: torch.device) -> None:
        # (n,) int64
        if len(tokens) < 2:
            raise InvalidDataset(f"the training part of the text has {len(tokens)} token(s): too short to learn from")
        self._tokens, self._device = tokens, device
        self.context_length = min(context_length, len(tokens) - 1)
        # One window less than would fit, so that offsets of a whole window and more leave every epoch the same number.
        self.windows = max(1, (len(tokens) - self.context_length) // self.context_length)
        self._largest_offset = len(tokens) - 1 - self.windows * self.context_length
        self.updates_per_epoch = math.ceil(self.windows / batch_size)
        self.counts = _counts(self.windows, self.updates_per_epoch)
        self.bucket = self.widen(1)
        self._steps = torch.arange(self.context_length + 1, device=tokens.device)
        self._starts = torch.empty(0, dtype=torch.int64)
        self._places: Tensor | None = None

    def widen(self, multiple: int) -> int:
        self.bucket = padded_rows(max(self.counts), multiple)
        return self.bucket

    def start_epoch(self, seed: int) -> None:
        generator = streams.generator(seed)
        offset = int(torch.randint(self._largest_offset + 1, (1,), generator=generator))
        order = torch.randperm(self.windows, generator=generator)
        self._starts, self._places = (offset + order * self.context_length).to(self._tokens.device), None

    @property
    def places(self) -> Tensor:
        if self._places is None or self._places.shape[1] != self.bucket:
            self._places = _places(self._starts, self.updates_per_epoch, self.bucket)
        return self._places

    def batch(self, position: int) -> tuple[Tensor, Tensor]:  # (B, T), (B, T)
        start, stop = bounds(self.windows, self.updates_per_epoch, position)
        windows = self._tokens[self._starts[start:stop, None] + self._steps]  # (B, T + 1)
        return _moved(windows[:, :-1], self._device), _moved(windows[:, 1:], self._device)


def bounds(rows: int, parts: int, position: int) -> tuple[int, int]:
    """Where part `position` of `parts` nearly equal parts of `rows` begins and ends."""
    return position * rows // parts, (position + 1) * rows // parts


def padded_rows(rows: int, multiple: int = 1) -> int:
    """The bucket of a batch: a multiple of an eighth of the next smaller power of two, of 4, and of `multiple`.

    At most an eighth of it is computed in vain, unless it is tiny. `multiple` is a power of two.
    """
    return round_up(rows, max(_SMALLEST_BUCKET, multiple, 1 << (rows.bit_length() - 1) >> 3))


def _counts(rows: int, parts: int) -> tuple[int, ...]:
    edges = [bounds(rows, parts, position) for position in range(parts)]
    return tuple(stop - start for start, stop in edges)


def _places(order: Tensor, parts: int, bucket: int) -> Tensor:  # (N,) -> (parts, bucket)
    return order.index_select(0, _ranks(len(order), parts, bucket, order.device)).view(parts, bucket)


@lru_cache(maxsize=16)
def _ranks(rows: int, parts: int, bucket: int, device: torch.device) -> Tensor:  # (parts * bucket,)
    """Which of an epoch's rows each place of its padded batches takes: the same in every epoch of every trial."""
    edges = torch.arange(parts + 1, device=device) * rows // parts
    steps = torch.arange(bucket, device=device)
    return torch.minimum(edges[:-1, None] + steps, edges[1:, None] - 1).view(-1)


def _moved(batch: Tensor, device: torch.device) -> Tensor:
    return batch if batch.device == device else batch.to(device, non_blocking=True)
