"""The training losses of many members, and their derivatives, without autograd.

Symbols: m members, B rows of a batch (windows times steps for texts), K outputs, K' outputs with padding; p softmax
of the logits z; t the target distribution, s the label smoothing; u the weight of a row, 1 / (rows of the batch),
zero for a row that only fills the batch up.

    classification  L = -sum_b u_b sum_k t_bk log p_bk   t_bk = (1 - s) [k = y_b] + s / K   dL/dz_bk = u_b (p_bk - t_bk)
    regression      L = sum_b u_b (z_b - y_b)^2                                            dL/dz_b = 2 u_b (z_b - y_b)
"""

from __future__ import annotations

import torch
from torch import Tensor

_NO_LOGIT = -1e30
"""That of an output which is padding: its probability is zero."""


def classification(
    logits: Tensor,  # (m, B, K')
    targets: Tensor,  # (m, B) int64
    row_weights: Tensor,  # (m, B)
    smoothing: Tensor | None,  # (m, 1, 1); None when no member smooths
    classes: int,
) -> tuple[Tensor, Tensor]:
    """The losses (m,) and their derivatives (m, B, K') by the logits, which are overwritten."""
    padding = slice(classes, logits.shape[2])
    logits[:, :, padding].fill_(_NO_LOGIT)
    log_probabilities = torch.log_softmax(logits, 2)
    wanted = logits.zero_().scatter_(2, targets.unsqueeze(2), 1.0)
    if smoothing is not None:
        wanted.mul_(1.0 - smoothing)
        wanted[:, :, :classes].add_(smoothing / classes)
    if classes < logits.shape[2]:
        # Padding gets the probability 1 and is wanted with 1: no loss, no derivative, no underflowing exponential.
        log_probabilities[:, :, padding].zero_()
        wanted[:, :, padding].fill_(1.0)
    losses = torch.mul(wanted, log_probabilities).sum(2).mul_(row_weights).sum(1).neg_()
    derivatives = log_probabilities.exp_().sub_(wanted).mul_(row_weights.unsqueeze(2))
    return losses, derivatives


def regression(
    predicted: Tensor,  # (m, B, K')
    targets: Tensor,  # (m, B)
    row_weights: Tensor,  # (m, B)
) -> tuple[Tensor, Tensor]:
    """The losses (m,) and their derivatives (m, B, K') by the outputs, of which the first one counts."""
    errors = predicted[:, :, 0] - targets
    weighted = errors * row_weights
    derivatives = torch.zeros_like(predicted)
    derivatives[:, :, 0] = 2.0 * weighted
    return (weighted * errors).sum(1), derivatives
