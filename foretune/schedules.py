"""Learning-rate schedules: one family with four shape numbers and a peak.

Symbols, for update k of K (k = 0 … K-1), with w, p, d, f the warm-up fraction, plateau fraction, decay exponent
and final fraction; W = wK, P = pK, D = K - W - P:

    multiplier(k) = (k + 1) / W                     while k + 1 < W          (warm-up)
                  = 1                               while k < W + P          (plateau)
                  = f + (1 - f) (1 - s)^d           with s = (k - W - P) / D (decay)

Constant is p = 1 - w; linear-to-zero p = 0, d = 1, f = 0 (arXiv 2502.15938); WSD p > 0; d near 2 resembles a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from foretune.errors import FieldError, InvalidSchedule
from foretune.json_types import JsonObject

SHAPE_FIELDS = ("warmup_fraction", "plateau_fraction", "decay_exponent", "final_fraction")
SHAPE_BOUNDS: dict[str, tuple[float, float]] = {
    "warmup_fraction": (0.0, 1.0),
    "plateau_fraction": (0.0, 1.0),
    "decay_exponent": (0.5, 4.0),
    "final_fraction": (0.0, 1.0),
}
"""What a schedule may be."""

SEARCH_BOUNDS: dict[str, tuple[float, float]] = {
    "warmup_fraction": (0.0, 0.2),
    "plateau_fraction": (0.0, 0.8),
    "decay_exponent": (0.5, 4.0),
    "final_fraction": (0.0, 0.3),
}
"""What is searched. Warm-up and plateau together never exceed the budget."""


@dataclass(frozen=True)
class ScheduleShape:
    """The shape of a schedule, relative to its peak and to the budget.

    Raises InvalidSchedule when a number lies outside SHAPE_BOUNDS or warm-up and plateau exceed the budget.
    """

    warmup_fraction: float = 0.0
    plateau_fraction: float = 0.0
    decay_exponent: float = 1.0
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        for field in SHAPE_FIELDS:
            value = getattr(self, field)
            low, high = SHAPE_BOUNDS[field]
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
                message = f"{field} must be a number from {low:g} to {high:g}, not {value!r}"
                raise InvalidSchedule(message, errors=[FieldError((field,), message)])
        if self.warmup_fraction + self.plateau_fraction > 1.0 + 1e-9:
            message = (
                "warmup_fraction + plateau_fraction must be at most 1, "
                f"not {self.warmup_fraction + self.plateau_fraction:g}"
            )
            raise InvalidSchedule(message, errors=[FieldError(("plateau_fraction",), message)])

    def multiplier(self, update: int, updates: int) -> float:
        """The factor on the peak for update number `update` (from 0) of `updates`."""
        warmup = self.warmup_fraction * updates
        if update + 1 < warmup:
            return (update + 1) / warmup
        decay_start = warmup + self.plateau_fraction * updates
        decay_length = updates - decay_start
        if update < decay_start or decay_length <= 1e-9 * updates:
            return 1.0
        remaining = max(0.0, 1.0 - (update - decay_start) / decay_length)
        return float(self.final_fraction + (1.0 - self.final_fraction) * remaining**self.decay_exponent)

    def to_json(self) -> JsonObject:
        return {field: getattr(self, field) for field in SHAPE_FIELDS}

    @classmethod
    def from_json(cls, value: object) -> ScheduleShape:
        """Reads what `to_json` wrote. Raises InvalidSchedule for anything else."""
        if not isinstance(value, dict):
            raise InvalidSchedule(f"a schedule is an object with {', '.join(SHAPE_FIELDS)}, not {value!r}")
        unknown = sorted(set(map(str, value)) - set(SHAPE_FIELDS))
        if unknown:
            raise InvalidSchedule(f"a schedule has no field {unknown[0]!r}; it has {', '.join(SHAPE_FIELDS)}")
        return cls(**value)


CONSTANT = ScheduleShape(plateau_fraction=1.0)
LINEAR_TO_ZERO = ScheduleShape()


@dataclass(frozen=True)
class LearningRateSchedule:
    """A shape with its peak learning rate. Raises InvalidSchedule when the peak is not finite and positive."""

    peak: float
    shape: ScheduleShape = LINEAR_TO_ZERO

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak > 0):
            raise InvalidSchedule(f"the peak learning rate must be a positive number, not {self.peak!r}")

    def learning_rate(self, update: int, updates: int) -> float:
        return self.peak * self.shape.multiplier(update, updates)

    def values(self, epochs: int) -> list[float]:
        """The learning rate of each epoch, for loops that set it once an epoch."""
        return [self.learning_rate(epoch, epochs) for epoch in range(epochs)]

    def to_json(self, epochs: int) -> JsonObject:
        """As clients see it: `peak`, the four shape numbers and `values`, one for each epoch."""
        return {"peak": self.peak, **self.shape.to_json(), "values": list(self.values(epochs))}
