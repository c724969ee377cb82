"""Dropout whose noise is a pure function of (key, layer, position in the batch), not of a generator's history.

A trial's noise is therefore its own: the same alone, beside others, stacked under `vmap`, after a resume and on any
device, and a checkpoint needs nothing but the number of the update. Element i of layer l is dropped when

    mix(words[i] xor key[l]) < rate * 2^31

with `words` fixed well-mixed 32-bit words and `mix` the last rounds of lowbias32 (C. Wellons, hash-prospector), its
upper bit dropped. Everything is 32-bit integer arithmetic, the mask included (all ones or zero, then the bit pattern
of the scale): on a CPU that takes a third of the time of the Mersenne Twister behind `torch.nn.Dropout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

_M1 = 0x7FEB352D
_M2 = 0x846CA68B
_M2_SIGNED = _M2 - (1 << 32)
_POSITIVE = 0x7FFFFFFF


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
        threshold = min(round(rate * 2**31), 2**31 - 1) - 1
        scale = torch.tensor(1.0 / (1.0 - rate), dtype=torch.float32)
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.int32), persistent=False)
        self.register_buffer("scale_bits", scale.view(torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, …) -> (B, …)
        if not self.training or self.rate == 0.0:
            return x
        bits = (_words(x.shape, x.device) ^ self.key).mul_(_M1)
        # The sign is shifted in from above: both halves of the words fall evenly on the 31-bit numbers.
        bits = bits.bitwise_xor_(bits >> 15).mul_(_M2_SIGNED).bitwise_and_(_POSITIVE)
        # The difference is negative where the element stays; its sign, spread over the word, masks the scale.
        mask = (self.threshold - bits).bitwise_right_shift_(31).bitwise_and_(self.scale_bits).view(torch.float32)
        return x * (mask if x.dtype == torch.float32 else mask.to(x.dtype))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def active_dropouts(module: nn.Module) -> list[Dropout]:
    """The dropout layers of a network that do something, in the network's order."""
    return [layer for layer in module.modules() if isinstance(layer, Dropout) and layer.rate > 0.0]


def set_noise(layers: Sequence[Dropout], key: int) -> None:
    """Gives each layer its noise for one update; `key` is any 64-bit number, different for each update."""
    for position, layer in enumerate(layers):
        layer.key.fill_(layer_key(key, position))


def layer_key(key: int, position: int) -> int:
    """The signed 32-bit key of the layer at `position`: splitmix64 of both, its upper half."""
    word = (key + (position + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    upper = (word ^ (word >> 31)) >> 32
    return upper - (1 << 32) if upper >= 1 << 31 else upper


@lru_cache(maxsize=64)
def _words(shape: torch.Size, device: torch.device) -> Tensor:  # (*shape) int32
    """lowbias32 of 1 … n, row by row. Made with numpy, so that no function transform wraps what is cached."""
    words = np.arange(1, shape.numel() + 1, dtype=np.uint32)
    words ^= words >> np.uint32(16)
    words *= np.uint32(_M1)
    words ^= words >> np.uint32(15)
    words *= np.uint32(_M2)
    words ^= words >> np.uint32(16)
    return torch.from_numpy(words.view(np.int32).reshape(shape)).to(device)
