"""Dropout whose noise is a pure function of (key, layer, position in the batch), not of a generator's history.

A trial's noise is therefore its own: the same alone, beside others, stacked, after a resume and on any device, and a
checkpoint needs nothing but the number of the update. Element i of layer l is dropped when

    (a[l] words[i] + b[l] mod 2^32) - 2^31 < rate * 2^32 - 2^31        (signed: what 32-bit integers do by themselves)

with `words` fixed well-mixed 32-bit words (lowbias32; C. Wellons, hash-prospector) and the key of a layer an odd a and
any b: multiply-add hashing (Dietzfelbinger 1996), which decorrelates any two places. The mask is made in
four passes of 32-bit integer arithmetic, the last of which turns 0 or 1 into the bit pattern of 0.0 or of the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.networks import splitmix

_M1 = 0x7FEB352D
_M2 = 0x846CA68B
_LOWEST = -(1 << 31)
_ROW = 0x9E3779B1
KEEP_ALL = _LOWEST
"""The threshold below which nothing falls."""


class Dropout(nn.Module):
    """Sets each element to zero with probability `rate` in training, and scales the others by 1 / (1 - rate).

    All that differs between two trials is in buffers (`key`, `threshold`, `scale_bits`), so that modules of one
    architecture can be stacked. `set_noise` must give a new key before every update. The buffers are not part of
    the state dict: they follow from the configuration and the number of the update.
    """

    key: Tensor
    threshold: Tensor
    scale_bits: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must lie in [0, 1), not {rate}")
        self.rate = rate
        threshold = min(round(rate * 2**32), 2**32 - 1) + _LOWEST
        scale = torch.tensor(1.0 / (1.0 - rate), dtype=torch.float32)
        self.register_buffer("key", torch.zeros(2, dtype=torch.int32), persistent=False)
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.int32), persistent=False)
        self.register_buffer("scale_bits", scale.view(torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, …) -> (B, …)
        if not self.training or self.rate == 0.0:
            return x
        # A comparison in place leaves 0 or 1 as integers: a mask of booleans would be ten times as slow.
        bits = (words(x.shape, x.device) * self.key[0]).add_(self.key[1]).ge_(self.threshold)
        kept = bits.mul_(self.scale_bits).view(torch.float32)
        return x * (kept if x.dtype == torch.float32 else kept.to(x.dtype))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def active_dropouts(module: nn.Module) -> list[Dropout]:
    """The dropout layers of a network that do something, in the network's order."""
    return [layer for layer in module.modules() if isinstance(layer, Dropout) and layer.rate > 0.0]


def set_noise(layers: Sequence[Dropout], key: int) -> None:
    """Gives each layer its noise for one update; `key` is any 64-bit number, different for each update."""
    for layer, own in zip(layers, layer_keys([key], len(layers))[0], strict=True):
        layer.key.copy_(own)


def layer_keys(keys: Sequence[int] | NDArray[np.uint64], layers: int) -> Tensor:  # (len(keys), layers, 2) int32
    """The odd multiplier and the offset of every layer at each update: splitmix64 of both, its halves."""
    word = splitmix.run(np.array(keys, dtype=np.uint64), 0, layers)
    halves = np.empty((*word.shape, 2), dtype=np.uint32)
    halves[:, :, 0], halves[:, :, 1] = word >> np.uint64(32) | np.uint64(1), word
    return torch.from_numpy(halves.view(np.int32))


@lru_cache(maxsize=64)
def words(shape: torch.Size, device: torch.device) -> Tensor:  # (*shape) int32
    """The fixed words of a tensor of `shape`: lowbias32 of 0x9E3779B1 row + column + 1.

    Column is the place in the last dimension, row the place in all others: more columns or more rows leave the words
    of the first ones as they are. Made with numpy, so that no function transform wraps what is cached. Do not write
    to them.
    """
    columns = shape[-1] if shape else 1
    rows = np.arange(shape.numel() // max(1, columns), dtype=np.uint32)[:, None] * np.uint32(_ROW)
    mixed: NDArray[np.uint32] = np.add(rows, np.arange(1, columns + 1, dtype=np.uint32), dtype=np.uint32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(_M1)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(_M2)
    mixed ^= mixed >> np.uint32(16)
    return torch.from_numpy(mixed.view(np.int32).reshape(shape)).to(device)


def mask(
    words: Tensor,  # (B, H) int32
    multipliers: Tensor,  # (m, 1, 1) int32
    offsets: Tensor,  # (m, 1, 1) int32
    thresholds: Tensor,  # (m, 1, 1) int32
    scale_bits: Tensor,  # (m, 1, 1) int32
    out: Tensor,  # (m, B, H) float32
) -> Tensor:
    """What `Dropout` multiplies with, for m layers at once: 0 or the scale. Written to `out`, which is returned."""
    bits = out.view(torch.int32)
    torch.mul(words, multipliers, out=bits)
    bits.add_(offsets).ge_(thresholds).mul_(scale_bits)
    return out
