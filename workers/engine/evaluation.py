"""The training loss, and the metrics on the validation part.

Axes: B rows of a batch, K outputs, T steps, V vocabulary, n tokens of a text.

Regression metrics are in original units (`val_loss` alone is standardised); those of a text are per character:
`val_loss` in nats. A text is read in windows of the context length that do not overlap, so each token but the first is
predicted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foretune.errors import InvalidDataset
from foretune.metrics import Goal
from foretune.wire.datasets import Task
from workers.datasets.prepare import PreparedData

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

_LARGEST_CHUNK_ROWS = 4_096
_CHUNK_ELEMENTS = 1 << 18
_CHUNK_TOKENS = 1 << 13
_LARGEST_EXPONENT = 700.0


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
    module: nn.Module,
    data: PreparedData,
    x: Tensor,
    y: Tensor,
    *,
    context_length: int,
    device: torch.device,
    autocast: AbstractContextManager[object],
) -> dict[str, float]:
    """The metrics of `module` on the validation part (`x`, `y`), which may lie on another device.

    The numbers may be infinite or NaN when the weights are.
    """
    module.eval()
    with torch.inference_mode(), autocast:
        if data.task is Task.LANGUAGE_MODELLING:
            return _evaluate_text(module, x, context_length, device)
        if data.task is Task.REGRESSION:
            return _evaluate_regression(module, data, x, y, device)
        return _evaluate_classification(module, x, y, device)


def _evaluate_classification(module: nn.Module, x: Tensor, y: Tensor, device: torch.device) -> dict[str, float]:
    loss, correct = 0.0, 0
    for inputs, targets in _chunks(x, y, device):
        outputs = module(inputs).float()  # (B, K)
        loss += float(F.cross_entropy(outputs, targets, reduction="sum"))
        correct += int((outputs.argmax(1) == targets).sum())
    return {"val_accuracy": correct / len(y), "val_loss": loss / len(y)}


def _evaluate_regression(
    module: nn.Module, data: PreparedData, x: Tensor, y: Tensor, device: torch.device
) -> dict[str, float]:
    squared, absolute = 0.0, 0.0
    for inputs, targets in _chunks(x, y, device):
        errors = module(inputs).float().squeeze(-1) - targets  # (B,)
        squared += float(errors.square().sum())
        absolute += float(errors.abs().sum())
    true = data.val_y.double()
    spread = float((true - true.mean()).square().sum())
    # As scikit-learn has it where all targets are equal and r2 is undefined.
    r2 = 1.0 - squared / spread if spread > 0.0 else float(squared == 0.0)
    return {
        "val_rmse": math.sqrt(squared / len(y)) * data.target_scale,
        "val_mae": absolute / len(y) * data.target_scale,
        "val_r2": r2,
        "val_loss": squared / len(y),
    }


def _evaluate_text(module: nn.Module, tokens: Tensor, context_length: int, device: torch.device) -> dict[str, float]:
    predicted = len(tokens) - 1
    if predicted < 1:
        raise InvalidDataset(f"the validation part of the text has {len(tokens)} token(s): too short to predict")
    loss = 0.0
    for inputs, targets in _text_chunks(tokens, context_length):
        outputs = module(inputs.to(device)).float()  # (B, T, V)
        loss += float(F.cross_entropy(outputs.flatten(0, 1), targets.to(device).flatten(), reduction="sum"))
    mean = loss / predicted
    return {
        "val_loss": mean,
        "val_perplexity": math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf,
        "val_bits_per_character": mean / math.log(2.0),
    }


def _chunks(x: Tensor, y: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    rows = min(_LARGEST_CHUNK_ROWS, max(1, _CHUNK_ELEMENTS // max(1, x[0].numel())))
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
