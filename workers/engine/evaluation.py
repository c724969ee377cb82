"""The training loss, and the metrics on the validation part.

Axes: m members, B rows of a batch, K outputs, T steps, V vocabulary, n tokens of a text.

Regression metrics are in original units (`val_loss` alone is standardised); those of a text are per character:
`val_loss` in nats. A text is read in windows of the context length that do not overlap, so each token but the first is
predicted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from foretune.errors import InvalidDataset
from foretune.metrics import Goal
from foretune.wire.datasets import Task
from workers.datasets.prepare import PreparedData
from workers.engine.device_data import DeviceData

METRICS: Mapping[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("val_accuracy", "val_loss", "train_loss", "learning_rate"),
    Task.REGRESSION: ("val_rmse", "val_mae", "val_r2", "val_loss", "train_loss", "learning_rate"),
    Task.LANGUAGE_MODELLING: ("val_loss", "val_perplexity", "val_bits_per_character", "train_loss", "learning_rate"),
}
"""What each epoch reports; the first one is what is tuned unless the client says otherwise."""

GOALS: Mapping[str, Goal] = {
    name: Goal.MAXIMIZE if name in ("val_accuracy", "val_r2") else Goal.MINIMIZE
    for names in METRICS.values()
    for name in names
    if name != "learning_rate"
}
"""Which way is better, for every metric that can be tuned."""

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""From inputs (B, …) or (B, T) to the outputs of every member: (m, B, K) or (m, B, T, V)."""

_LARGEST_CHUNK_ROWS = 4_096
_CHUNK_ELEMENTS = 1 << 18
_CHUNK_TOKENS = 1 << 13
_LARGEST_EXPONENT = 700.0
_FEW_CLASSES = 32
"""Up to so many, probabilities are computed for all rows class by class: torch's kernel for short rows is slow, seven
times for ten classes."""


def training_loss(outputs: Tensor, targets: Tensor, task: Task, label_smoothing: float) -> Tensor:
    """The mean loss of a batch: () from (B, K) and (B,), or from (B, T, V) and (B, T)."""
    if task is Task.REGRESSION:
        return F.mse_loss(outputs.float().squeeze(-1), targets)
    if task is Task.LANGUAGE_MODELLING:
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    return F.cross_entropy(outputs.float(), targets, label_smoothing=label_smoothing)


def trivial_loss(data: PreparedData) -> float:
    """What the worst batch costs a predictor that has learned nothing: a yardstick for losses that explode."""
    if data.task is Task.REGRESSION:
        return max(1.0, float(data.train_y.abs().max()) ** 2)
    return math.log(max(2, data.output_size))


def evaluate(
    forward: Forward,
    data: DeviceData,
    x: Tensor,
    *,
    context_length: int,
    largest_chunk: int = _LARGEST_CHUNK_ROWS,
) -> list[dict[str, float]]:
    """The metrics on the validation part of each member that `forward` computes.

    `x` are its inputs, as `forward` wants them; they may lie on another device. At most `largest_chunk` rows are
    computed at once. The numbers may be infinite or NaN when the weights are.
    """
    if data.prepared.task is Task.LANGUAGE_MODELLING:
        return _evaluate_text(forward, x, context_length, data.device)
    chunks = _chunks(x, data.val_y, largest_chunk, data.device)
    if data.prepared.task is Task.REGRESSION:
        return _evaluate_regression(forward, data.prepared, chunks)
    return _evaluate_classification(forward, chunks)


def _evaluate_classification(forward: Forward, chunks: Iterable[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    losses, correct = _Sums(), _Sums()
    rows = 0
    for inputs, targets in chunks:
        outputs = forward(inputs).float()  # (m, B, K)
        losses.add(_cross_entropy(outputs, targets))
        correct.add((outputs.argmax(2) == targets).sum(1))
        rows += len(targets)
    return [
        classification_metrics(loss, right, rows) for loss, right in zip(losses.values, correct.values, strict=True)
    ]


def _evaluate_regression(
    forward: Forward, data: PreparedData, chunks: Iterable[tuple[Tensor, Tensor]]
) -> list[dict[str, float]]:
    squared, absolute = _Sums(), _Sums()
    for inputs, targets in chunks:
        errors = forward(inputs).float()[:, :, 0] - targets  # (m, B)
        squared.add(errors.square().sum(1))
        absolute.add(errors.abs().sum(1))
    return [
        regression_metrics(square, distance, data)
        for square, distance in zip(squared.values, absolute.values, strict=True)
    ]


def classification_metrics(loss: float, right: float, rows: int) -> dict[str, float]:
    """From the sum of the cross-entropies of all rows and the number of those that are right."""
    return {"val_accuracy": right / rows, "val_loss": loss / rows}


def regression_metrics(squares: float, distances: float, data: PreparedData) -> dict[str, float]:
    """From the sums of the squared and of the absolute errors of all validation rows."""
    true = data.val_y.double()
    rows, spread = len(true), float((true - true.mean()).square().sum())
    return {
        "val_rmse": math.sqrt(squares / rows) * data.target_scale,
        "val_mae": distances / rows * data.target_scale,
        # As scikit-learn has it where all targets are equal and r2 is undefined.
        "val_r2": 1.0 - squares / spread if spread > 0.0 else float(squares == 0.0),
        "val_loss": squares / rows,
    }


def _evaluate_text(
    forward: Forward, tokens: Tensor, context_length: int, device: torch.device
) -> list[dict[str, float]]:
    predicted = len(tokens) - 1
    if predicted < 1:
        raise InvalidDataset(f"the validation part of the text has {len(tokens)} token(s): too short to predict")
    losses = _Sums()
    for inputs, targets in _text_chunks(tokens, context_length):
        outputs = forward(inputs.to(device)).float()  # (m, B, T, V)
        losses.add(_cross_entropy(outputs.flatten(1, 2), targets.to(device).flatten()))
    means = [loss / predicted for loss in losses.values]
    return [
        {
            "val_loss": mean,
            "val_perplexity": math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf,
            "val_bits_per_character": mean / math.log(2.0),
        }
        for mean in means
    ]


class _Sums:
    """One running sum for each member, in float64."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, values: Tensor) -> None:  # (m,)
        added = values.tolist()
        self.values = [old + new for old, new in zip(self.values, added, strict=True)] if self.values else added


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:  # (m, B, K), (B,) -> (m,)
    """The sum over the rows of each member."""
    few = outputs.shape[2] <= _FEW_CLASSES
    dimension, places = (1, targets.unsqueeze(0)) if few else (2, targets.unsqueeze(1))
    logits = outputs.transpose(1, 2).contiguous() if few else outputs
    logarithms = torch.log_softmax(logits, dimension).gather(dimension, places.expand(len(outputs), -1, -1))
    return logarithms.squeeze(dimension).sum(1).neg_()


def _chunks(x: Tensor, y: Tensor, largest: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    rows = min(largest, max(1, _CHUNK_ELEMENTS // max(1, x[0].numel())))
    for start in range(0, len(x), rows):
        yield x[start : start + rows].to(device), y[start : start + rows].to(device)


def _text_chunks(tokens: Tensor, context_length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows (B, T) with their targets (B, T); the tail that fills no window comes last, as (1, T')."""
    predicted = len(tokens) - 1
    whole = predicted // context_length
    inputs = tokens[: whole * context_length].view(whole, context_length)
    targets = tokens[1 : whole * context_length + 1].view(whole, context_length)
    rows = max(1, _CHUNK_TOKENS // context_length)
    for start in range(0, whole, rows):
        yield inputs[start : start + rows], targets[start : start + rows]
    if predicted > whole * context_length:
        yield tokens[None, whole * context_length : -1], tokens[None, whole * context_length + 1 :]
