"""What every benchmark problem offers: a space, an objective to minimise and the numbers that normalise its regret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from foretune.spaces import Configuration, Space

Split: TypeAlias = Literal["development", "report"]
Objective: TypeAlias = Callable[[Configuration], float]
_MEDIAN_SAMPLES = 4000


@dataclass(frozen=True)
class Landscape:
    """An objective to minimise and its least value."""

    objective: Objective
    best: float


@dataclass(frozen=True)
class BenchmarkProblem:
    """A problem whose landscape is built on first use, because tables take a moment to read."""

    name: str
    split: Split
    space: Space
    build: Callable[[], Landscape]

    @cached_property
    def landscape(self) -> Landscape:
        return self.build()

    @cached_property
    def median(self) -> float:
        """The value of a median random configuration: 1 on the regret's scale."""
        generator = np.random.default_rng(20_240_601)
        points = generator.random((_MEDIAN_SAMPLES, self.space.dimensions))
        return float(np.median([self.landscape.objective(self.space.from_unit(list(point))) for point in points]))

    def regret(self, value: float) -> float:
        """0 at the optimum, 1 at a median random configuration."""
        return max(value - self.landscape.best, 0.0) / (self.median - self.landscape.best)
