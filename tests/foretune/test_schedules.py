"""Learning-rate schedules against torch's own schedulers and against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LinearLR, LRScheduler, PolynomialLR

from foretune.errors import InvalidSchedule
from foretune.schedules import CONSTANT, LINEAR_TO_ZERO, SHAPE_FIELDS, LearningRateSchedule, ScheduleShape

UPDATES = st.integers(1, 400)


@st.composite
def shapes(draw: st.DrawFn) -> ScheduleShape:
    warmup = draw(st.floats(0, 1))
    plateau = draw(st.floats(0, 1)) * (1 - warmup)
    return ScheduleShape(warmup, plateau, draw(st.floats(0.5, 4)), draw(st.floats(0, 1)))


def multipliers(shape: ScheduleShape, updates: int) -> list[float]:
    return [shape.multiplier(update, updates) for update in range(updates)]


def by_torch(make: type[LRScheduler], updates: int, **options: object) -> list[float]:
    """The learning rates that a scheduler of torch gives an SGD whose own is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer, **options)  # type: ignore[arg-type]
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


class TestNumbers:
    @pytest.mark.parametrize("updates", [1, 2, 7, 100])
    def test_linear_to_zero(self, updates: int) -> None:
        expected = by_torch(LinearLR, updates, start_factor=1.0, end_factor=0.0, total_iters=updates)
        assert multipliers(LINEAR_TO_ZERO, updates) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 4.0])
    def test_power(self, exponent: float) -> None:
        expected = by_torch(PolynomialLR, 50, total_iters=50, power=exponent)
        assert multipliers(ScheduleShape(decay_exponent=exponent), 50) == pytest.approx(expected, rel=1e-9)

    def test_constant(self) -> None:
        assert multipliers(CONSTANT, 30) == by_torch(ConstantLR, 30, factor=1.0)

    def test_warmup_plateau_and_decay_to_a_final_value(self) -> None:
        """Given 100 updates: 10 up, 40 flat, 50 down to a tenth with the square."""

        def expected(update: int) -> float:
            if update < 10:
                return (update + 1) / 10
            return 1.0 if update < 50 else 0.1 + 0.9 * ((100 - update) / 50) ** 2

        shape = ScheduleShape(0.1, 0.4, 2.0, 0.1)
        assert multipliers(shape, 100) == pytest.approx(by_torch(LambdaLR, 100, lr_lambda=expected), rel=1e-9)

    @given(shapes(), UPDATES)
    def test_the_formula_of_the_docstring(self, shape: ScheduleShape, updates: int) -> None:
        """As arrays: warm-up, plateau and decay computed everywhere, and chosen by where they hold."""
        k = np.arange(updates, dtype=float)
        warm = shape.warmup_fraction * updates
        flat = warm + shape.plateau_fraction * updates
        with np.errstate(divide="ignore", invalid="ignore"):
            rising = (k + 1) / warm
            s = np.clip((k - flat) / (updates - flat), 0, 1)
            falling = shape.final_fraction + (1 - shape.final_fraction) * (1 - s) ** shape.decay_exponent
        never_falls = updates - flat <= 1e-9 * updates
        expected = np.select([k + 1 < warm, (k < flat) | never_falls], [rising, np.ones(updates)], falling)
        assert multipliers(shape, updates) == pytest.approx(expected.tolist(), rel=1e-9)

    @given(shapes(), UPDATES)
    def test_it_rises_then_falls_and_never_leaves_its_bounds(self, shape: ScheduleShape, updates: int) -> None:
        found = multipliers(shape, updates)
        assert all(0.0 <= value <= 1.0 for value in found)
        top = found.index(max(found))
        assert all(later >= earlier for earlier, later in pairwise(found[: top + 1]))
        assert all(later <= earlier + 1e-12 for earlier, later in pairwise(found[top:]))
        assert found[0] > 0, "the first update must move something"

    def test_a_warmup_shorter_than_an_update_is_none(self) -> None:
        assert ScheduleShape(warmup_fraction=0.05).multiplier(0, 10) == 1.0


class TestSchedule:
    def test_as_clients_see_it(self) -> None:
        schedule = LearningRateSchedule(0.2, ScheduleShape(final_fraction=0.5))
        assert schedule.to_json(4) == {
            "peak": 0.2,
            "warmup_fraction": 0.0,
            "plateau_fraction": 0.0,
            "decay_exponent": 1.0,
            "final_fraction": 0.5,
            "values": pytest.approx([0.2, 0.175, 0.15, 0.125]),
        }

    @given(shapes(), st.floats(1e-8, 10))
    def test_the_peak_scales_everything(self, shape: ScheduleShape, peak: float) -> None:
        values = LearningRateSchedule(peak, shape).values(20)
        assert values == pytest.approx([peak * value for value in multipliers(shape, 20)])

    @pytest.mark.parametrize("peak", [0.0, -0.1, math.nan, math.inf])
    def test_a_peak_must_be_positive(self, peak: float) -> None:
        with pytest.raises(InvalidSchedule, match="positive number"):
            LearningRateSchedule(peak)


class TestShape:
    @given(shapes())
    def test_json_and_back(self, shape: ScheduleShape) -> None:
        assert ScheduleShape.from_json(shape.to_json()) == shape

    @pytest.mark.parametrize("field", SHAPE_FIELDS)
    @pytest.mark.parametrize("value", [-0.1, 4.1, math.nan, True, "0.5", None])
    def test_a_number_out_of_bounds_is_refused_by_name(self, field: str, value: object) -> None:
        with pytest.raises(InvalidSchedule, match=f"{field} must be a number from") as caught:
            ScheduleShape.from_json({field: value})
        assert caught.value.errors[0].loc == (field,)

    def test_warmup_and_plateau_share_the_budget(self) -> None:
        ScheduleShape(warmup_fraction=0.5, plateau_fraction=0.5)
        with pytest.raises(InvalidSchedule, match=r"must be at most 1, not 1\.1"):
            ScheduleShape(warmup_fraction=0.5, plateau_fraction=0.6)

    @pytest.mark.parametrize("value", [None, 3, "linear", [0.1], {"shape": 1}, {1: 2}])
    def test_what_is_no_schedule_is_refused(self, value: object) -> None:
        with pytest.raises(InvalidSchedule, match="warmup_fraction, plateau_fraction, decay_exponent, final_fraction"):
            ScheduleShape.from_json(value)
