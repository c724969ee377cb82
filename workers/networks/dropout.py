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
from numpy.typing import NDArray
from torch import Tensor, nn

_M1 = 0x7FEB352D
_M2 = 0x846CA68B
_M2_SIGNED = _M2 - (1 << 32)
_POSITIVE = 0x7FFFFFFF
_ROW = 0x9E3779B1
_GOLDEN = 0x9E3779B97F4A7C15


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
        bits = (words(x.shape, x.device) ^ self.key).mul_(_M1)
        # The sign is shifted in from above: both halves of the words fall evenly on the 31-bit numbers.
        bits = bits.bitwise_xor_(bits >> 15).mul_(_M2_SIGNED).bitwise_and_(_POSITIVE)
        # The difference is negative where the element stays; its sign, spread over the word, masks the scale.
        kept = (self.threshold - bits).bitwise_right_shift_(31).bitwise_and_(self.scale_bits).view(torch.float32)
        return x * (kept if x.dtype == torch.float32 else kept.to(x.dtype))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def active_dropouts(module: nn.Module) -> list[Dropout]:
    """The dropout layers of a network that do something, in the network's order."""
    return [layer for layer in module.modules() if isinstance(layer, Dropout) and layer.rate > 0.0]


def set_noise(layers: Sequence[Dropout], key: int) -> None:
    """Gives each layer its noise for one update; `key` is any 64-bit number, different for each update."""
    for position, layer in enumerate(layers):
        layer.key.fill_(layer_key(key, position))


def layer_keys(keys: Sequence[int], layers: int) -> Tensor:  # (len(keys), layers) int32
    """`layer_key` for many updates and every layer at once."""
    word = np.array(keys, dtype=np.uint64)[:, None] + np.arange(1, layers + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    upper = ((word ^ (word >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
    return torch.from_numpy(upper.view(np.int32))


def layer_key(key: int, position: int) -> int:
    """The signed 32-bit key of the layer at `position`: splitmix64 of both, its upper half."""
    word = (key + (position + 1) * _GOLDEN) & 0xFFFFFFFFFFFFFFFF
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    upper = (word ^ (word >> 31)) >> 32
    return upper - (1 << 32) if upper >= 1 << 31 else upper


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
    keys: Tensor,  # (m, 1, 1) int32
    thresholds: Tensor,  # (m, 1, 1) int32
    scale_bits: Tensor,  # (m, 1, 1) int32
    out: Tensor,  # (m, B, H) float32
    scratch: Tensor,  # (m, B, H) int32
) -> Tensor:
    """What `Dropout` multiplies with, for m layers at once: 0 or the scale. Written to `out`, which is returned."""
    bits = out.view(torch.int32)
    first, second, shift, positive, sign = _constants(out.device)
    torch.bitwise_xor(words, keys, out=bits)
    bits.mul_(first)
    torch.bitwise_right_shift(bits, shift, out=scratch)
    bits.bitwise_xor_(scratch).mul_(second).bitwise_and_(positive)
    torch.sub(thresholds, bits, out=bits).bitwise_right_shift_(sign).bitwise_and_(scale_bits)
    return out


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, ...]:
    """Multipliers, shifts and the mask as tensors: a Python number would become one at every call."""
    numbers = (_M1, _M2_SIGNED, 15, _POSITIVE, 31)
    return tuple(torch.tensor(number, dtype=torch.int32, device=device) for number in numbers)
