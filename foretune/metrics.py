"""The metric of an experiment: its name and which way is better."""

from __future__ import annotations

from enum import StrEnum


class Goal(StrEnum):
    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    @property
    def sign(self) -> float:
        """Multiply a value by it and larger is better."""
        return 1.0 if self is Goal.MAXIMIZE else -1.0

    def better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats `than`; anything beats None."""
        return than is None or self.sign * value > self.sign * than
