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
    places, weights = targets.unsqueeze(2), row_weights.neg().unsqueeze(2)
    logits[:, :, classes:].fill_(_NO_LOGIT)
    log_probabilities = torch.log_softmax(logits, 2)
    wanted = logits.zero_().scatter_(2, places, weights)  # -u t
    # Either way a member that does not smooth has the same bits: all that smoothing adds to it are zeros. For that no
    # logarithm may be infinite.
    lowest = torch.finfo(logits.dtype).min
    if smoothing is None:
        row_losses = log_probabilities.gather(2, places).clamp_(min=lowest).mul_(weights).squeeze(2)
    else:
        wanted.mul_(1.0 - smoothing)
        wanted[:, :, :classes].add_(weights * (smoothing / classes))
        row_losses = torch.mul(log_probabilities.clamp_(min=lowest), wanted).sum(2)
    # That is -u t - p sum_k(-u t_k), and t sums to one.
    derivatives = torch.ops.aten._log_softmax_backward_data(wanted, log_probabilities, 2, logits.dtype)
    return row_losses.sum(1), derivatives


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
