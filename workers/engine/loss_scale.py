"""Dynamic loss scaling for float16, whose small gradients would vanish (Micikevicius et al. 2018).

bfloat16 and float32 have range enough and need none.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROWTH_INTERVAL = 2_000
_LARGEST = 2.0**24


class LossScale:
    """One trial's scale: halved when a gradient overflows (that update is skipped), doubled after a long quiet."""

    def __init__(self, scale: float = 2.0**16, quiet_updates: int = 0) -> None:
        self.scale = scale
        self.quiet_updates = quiet_updates

    def unscale(self, gradient: Tensor) -> bool:  # (P,)
        """Divides the gradient by the scale, in place; False when it overflowed and must not be used."""
        gradient.div_(self.scale)
        if bool(torch.isfinite(gradient).all()):
            self.quiet_updates += 1
            if self.quiet_updates >= _GROWTH_INTERVAL and self.scale < _LARGEST:
                self.scale, self.quiet_updates = self.scale * 2.0, 0
            return True
        self.scale, self.quiet_updates = max(1.0, self.scale / 2.0), 0
        return False
