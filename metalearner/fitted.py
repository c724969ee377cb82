"""A fitted model: what is computed from histories once, and used for every task after that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from metalearner.histories import TaskHistory
from metalearner.intervals import Calibration
from metalearner.kernels import HistoryKernel, usual_kernel


@dataclass(frozen=True)
class Residuals:
    """Where a history's outcomes fell in the forecasts that others made of them (`metalearner.intervals`)."""

    other: tuple[float, ...] = ()
    """In the forecasts of other data's histories."""
    same: tuple[float, ...] = ()
    """Where there are histories of the same data, in forecasts with them."""


@dataclass(frozen=True)
class FittedModel:
    """Everything by reference of the history that it says something about; what is missing is not fitted yet."""

    kernels: Mapping[str, HistoryKernel] = field(default_factory=dict)
    residuals: Mapping[str, Residuals] = field(default_factory=dict)

    def after(self, previous: FittedModel) -> FittedModel:
        """With what the previous model says of histories of which this one says nothing."""
        return FittedModel({**previous.kernels, **self.kernels}, {**previous.residuals, **self.residuals})

    def kernel(self, history: TaskHistory) -> HistoryKernel:
        """The history's own, or the usual one while it has none."""
        return self.kernels.get(history.reference) or usual_kernel(history.space.dimensions)

    def calibration(self, *, same_data: bool) -> Calibration:
        """Of forecasts with, or without, histories of the same data."""
        return self._same if same_data else self._other

    @cached_property
    def _same(self) -> Calibration:
        return Calibration.of([one for found in self.residuals.values() for one in found.same])

    @cached_property
    def _other(self) -> Calibration:
        return Calibration.of([one for found in self.residuals.values() for one in found.other])
