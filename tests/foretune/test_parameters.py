"""Each kind of hyperparameter: its mapping from the unit interval, and what it refuses."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from foretune.errors import ForetuneError, InvalidSpace
from foretune.parameters import Bool, Categorical, Float, Int, Parameter, Schedule
from foretune.schedules import SEARCH_BOUNDS, ScheduleShape
from foretune.spaces import Space

EVEN = [(number + 0.5) / 6000 for number in range(6000)]


class TestFloat:
    def test_the_ends_of_the_interval_are_the_ends_of_the_range(self) -> None:
        assert Float("x", -2.0, 3.0).from_unit([0.0]) == -2.0
        assert Float("x", -2.0, 3.0).from_unit([1.0]) == 3.0

    def test_log_spreads_evenly_over_magnitudes(self) -> None:
        parameter = Float("x", 1e-4, 1.0, log=True)
        assert [parameter.from_unit([u]) for u in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1])

    @pytest.mark.parametrize(("low", "high", "step"), [(0.0, 1.0, 0.25), (-3.0, -1.0, 1.0), (-1.0, 0.0, 0.5)])
    def test_a_step_reaches_every_point_of_its_grid(self, low: float, high: float, step: float) -> None:
        parameter = Float("x", low, high, step=step)
        grid = [low + number * step for number in range(round((high - low) / step) + 1)]
        assert sorted({parameter.from_unit([u]) for u in EVEN}) == pytest.approx(grid)

    def test_a_step_that_does_not_divide_the_range_stays_below_high(self) -> None:
        values = {Float("x", 0.0, 1.0, step=0.3).from_unit([u]) for u in EVEN}
        assert sorted(values) == pytest.approx([0.0, 0.3, 0.6, 0.9])

    @given(st.floats(1e-300, 1e300), st.floats(1.001, 1e6), st.floats(0, 1))
    def test_extreme_ranges_hold(self, low: float, factor: float, u: float) -> None:
        high = low * factor
        for log in (False, True):
            parameter = Float("x", low, high, log=log)
            value = parameter.from_unit([u])
            assert low <= value <= high
            assert parameter.problem_with(value) is None
            assert 0.0 <= parameter.to_unit(value)[0] <= 1.0

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"low": 1.0, "high": 1.0}, "low must be less than high: 1.0 is not less than 1.0"),
            ({"low": 2.0, "high": 1.0}, "low must be less than high"),
            ({"low": 0.0, "high": 1.0, "log": True}, "with log, low must be greater than 0, not 0.0"),
            ({"low": -1.0, "high": 1.0, "log": True}, "with log, low must be greater than 0"),
            ({"low": 0.0, "high": 1.0, "step": 0.0}, "step must be greater than 0"),
            ({"low": 0.0, "high": 1.0, "step": 2.0}, "at most high - low"),
            ({"low": 1.0, "high": 2.0, "step": 0.5, "log": True}, "log and step exclude each other"),
            ({"low": -1e308, "high": 1e308}, "the range is too wide"),
            ({"low": 1e10, "high": math.nextafter(1e10, 2e10), "log": True}, "is too narrow to search with log"),
            ({"low": 0.0, "high": math.inf}, "finite"),
            ({"low": math.nan, "high": 1.0}, "finite"),
        ],
    )
    def test_a_range_that_cannot_be_searched_is_refused(self, fields: dict[str, float], words: str) -> None:
        with pytest.raises(InvalidSpace, match=words):
            Float("x", **fields)  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [True, "0.5", None, 1.5, -0.1, math.nan, math.inf, [0.5]])
    def test_what_is_no_value_of_it_is_refused(self, value: object) -> None:
        assert "from 0 to 1" in (Float("x", 0.0, 1.0).problem_with(value) or "")  # type: ignore[arg-type]


class TestInt:
    @pytest.mark.parametrize(("low", "high", "step"), [(0, 5, None), (-3, 3, 2), (1, 10, 4), (7, 8, None)])
    def test_every_value_is_equally_likely(self, low: int, high: int, step: int | None) -> None:
        parameter = Int("n", low, high, step=step)
        counts = Counter(parameter.from_unit([u]) for u in EVEN)
        expected = list(range(low, high + 1, step or 1))
        assert sorted(counts) == expected
        assert min(counts.values()) > 0.5 * len(EVEN) / len(expected)

    def test_log_gives_each_doubling_its_share(self) -> None:
        counts = Counter(Int("n", 1, 64, log=True).from_unit([u]) for u in EVEN)
        assert set(counts) == set(range(1, 65))
        shares = [sum(counts[n] for n in range(2**k, 2 ** (k + 1))) / len(EVEN) for k in range(1, 6)]
        assert max(shares) < 1.6 * min(shares)

    def test_the_largest_exact_integers_survive(self) -> None:
        parameter = Int("n", -(2**53), 2**53)
        assert parameter.from_unit([0.0]) == -(2**53)
        assert parameter.from_unit([1.0]) == 2**53
        with pytest.raises(InvalidSpace, match=r"within ±2\^53"):
            Int("n", 0, 2**53 + 1)

    @pytest.mark.parametrize("value", [True, 1.5, "1", None, 11, 0])
    def test_what_is_no_value_of_it_is_refused(self, value: object) -> None:
        assert Int("n", 1, 10).problem_with(value) is not None  # type: ignore[arg-type]

    def test_a_whole_number_that_came_as_a_float_is_one(self) -> None:
        assert Int("n", 1, 10).problem_with(3.0) is None


class TestCategorical:
    def test_every_choice_is_equally_likely(self) -> None:
        counts = Counter(Categorical("c", ["a", "b", "c"]).from_unit([u]) for u in EVEN)
        assert counts == {"a": 2000, "b": 2000, "c": 2000}

    def test_true_and_one_are_different_choices(self) -> None:
        parameter = Categorical("c", [1, True, "1"])
        assert [parameter.index(value) for value in (1, True, "1")] == [0, 1, 2]
        assert [type(parameter.from_unit(parameter.to_unit(value))) for value in (1, True, "1")] == [int, bool, str]

    @pytest.mark.parametrize("choices", [["a", "a"], [1, 1], [1, 1.0], [True, True]])
    def test_a_choice_cannot_stand_twice(self, choices: list[object]) -> None:
        with pytest.raises(InvalidSpace, match="must differ"):
            Categorical("c", choices)  # type: ignore[arg-type]

    @pytest.mark.parametrize("choice", [math.nan, math.inf, 10**30, -(10**30), "a\x00b", "\ud800"])
    def test_what_json_or_postgres_cannot_keep_is_no_choice(self, choice: object) -> None:
        with pytest.raises(InvalidSpace):
            Categorical("c", ["a", choice])  # type: ignore[list-item]


class TestBool:
    def test_halves(self) -> None:
        assert Counter(Bool("b").from_unit([u]) for u in EVEN) == {False: 3000, True: 3000}

    @pytest.mark.parametrize("value", [0, 1, "true", None])
    def test_only_true_and_false_are_values(self, value: object) -> None:
        assert Bool("b").problem_with(value) is not None  # type: ignore[arg-type]


class TestSchedule:
    @given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
    def test_every_point_is_a_schedule_within_the_search_bounds(self, u: list[float]) -> None:
        value = Schedule().from_unit(u)
        shape = ScheduleShape.from_json(value)
        for field, (low, high) in SEARCH_BOUNDS.items():
            assert low <= getattr(shape, field) <= high
        assert Schedule().from_unit(Schedule().to_unit(value)) == pytest.approx(value)

    @pytest.mark.parametrize(
        "value", [None, {}, {"warmup_fraction": 2.0}, {"peak": 1.0}, {"warmup_fraction": 0.6, "plateau_fraction": 0.6}]
    )
    def test_what_is_no_schedule_says_why(self, value: object) -> None:
        problem = Schedule().problem_with(value)  # type: ignore[arg-type]
        assert (problem is None) == (value == {})


class TestNames:
    """Names are kept in Postgres, as text and within JSON."""

    ADAPTER: TypeAdapter[Parameter] = TypeAdapter(Parameter)

    @pytest.mark.parametrize("text", ["", "x" * 101, "a\x00", "\ud800"])
    @pytest.mark.parametrize("field", ["name", "role"])
    def test_what_cannot_be_kept_is_refused(self, field: str, text: str) -> None:
        with pytest.raises(ValidationError):
            self.ADAPTER.validate_python({"name": "a", "type": "bool", field: text})

    def test_letters_of_any_script_are_kept(self) -> None:
        parameter = self.ADAPTER.validate_python({"name": "скорость обучения 🚀", "type": "bool"})
        assert parameter.name == "скорость обучения 🚀"


class TestErrors:
    """What is made by hand fails as everything of the package does, and as values do in Python."""

    def test_parameters_and_spaces(self) -> None:
        for wrong in (lambda: Float("x", 1, 0), lambda: Float("\x00", 0, 1), lambda: Categorical("c", []), Space.of):
            with pytest.raises(ValueError) as caught:
                wrong()
            assert isinstance(caught.value, ForetuneError)

    def test_the_message_is_precise(self) -> None:
        with pytest.raises(InvalidSpace) as caught:
            Float("x", 1, 0)
        assert caught.value.message == "Float: low must be less than high: 1.0 is not less than 0.0"
        with pytest.raises(InvalidSpace, match=r"Int: high: .*valid integer") as caught:
            Int("n", 1, "many")  # type: ignore[arg-type]
        assert caught.value.errors[0].loc == ("high",)

    def test_parsing_leaves_them_to_pydantic(self) -> None:
        adapter: TypeAdapter[Parameter] = TypeAdapter(Parameter)
        with pytest.raises(ValidationError, match="low must be less than high"):
            adapter.validate_python({"name": "x", "type": "float", "low": 1, "high": 0})
