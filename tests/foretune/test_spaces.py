"""Spaces: every point of the unit cube is a valid configuration and back, and every contradiction has its words."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import InvalidConfiguration, InvalidSpace
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import MAX_PARAMETERS, AnyParameter, Configuration, Space

UNIT = st.floats(0.0, 1.0)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)


@st.composite
def floats(draw: st.DrawFn, name: str) -> Float:
    if draw(st.booleans()):
        low = draw(st.floats(1e-8, 1e3))
        return Float(name, low, low * draw(st.floats(1.5, 1e6)), log=True)
    low = draw(st.floats(-1e6, 1e6))
    width = draw(st.floats(0.1, 1e6))
    step = width / draw(st.integers(1, 20)) if draw(st.booleans()) else None
    return Float(name, low, low + width, step=step and min(step, low + width - low))


@st.composite
def integers(draw: st.DrawFn, name: str) -> Int:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    high = low + draw(st.integers(1, 10**9))
    step = draw(st.integers(1, high - low)) if not log and draw(st.booleans()) else None
    return Int(name, low, high, log=log, step=step)


@st.composite
def categoricals(draw: st.DrawFn, name: str) -> Categorical:
    scalars = st.one_of(TEXTS, st.booleans(), st.integers(-5, 5), st.floats(-5, 5))
    choices = draw(st.lists(scalars, min_size=1, max_size=6, unique_by=lambda choice: (type(choice) is bool, choice)))
    return Categorical(name, choices, ordered=draw(st.booleans()))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to seven parameters, many of them under conditions on earlier ones."""
    parameters: list[AnyParameter] = []
    for number in range(draw(st.integers(1, 7))):
        name = f"p{number}"
        made: AnyParameter = draw(
            st.one_of(floats(name), integers(name), categoricals(name), st.just(Bool(name)), st.just(Schedule(name)))
        )
        if isinstance(made, Schedule) and any(isinstance(one, Schedule) for one in parameters):
            made = Bool(name)
        parents = [one for one in parameters if isinstance(one, Bool | Categorical)]
        if draw(st.booleans()) and parents:
            parent = draw(st.sampled_from(parents))
            values = st.booleans() if isinstance(parent, Bool) else st.sampled_from(parent.choices)
            allowed = draw(st.lists(values, min_size=1, max_size=2))
            made = type(made)(**{**made.__dict__, "when": {parent.name: allowed}})
        parameters.append(made)
    return Space(tuple(parameters))


@st.composite
def points(draw: st.DrawFn) -> tuple[Space, Configuration]:
    space = draw(spaces())
    vector = draw(st.lists(UNIT, min_size=space.dimensions, max_size=space.dimensions))
    return space, space.from_unit(vector)


def same(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-6)
    return type(left) is type(right) and left == right


class TestCodec:
    @given(points())
    def test_every_point_of_the_cube_is_a_valid_configuration(self, point: tuple[Space, Configuration]) -> None:
        space, configuration = point
        space.check(configuration)

    @given(points())
    def test_a_configuration_survives_the_way_to_the_cube_and_back(self, point: tuple[Space, Configuration]) -> None:
        space, configuration = point
        vector = space.to_unit(configuration)
        assert len(vector) == space.dimensions
        assert all(math.isnan(u) or 0.0 <= u <= 1.0 for u in vector)
        assert same(space.from_unit(vector), configuration)

    @given(points())
    def test_inactive_parameters_are_absent_and_nan(self, point: tuple[Space, Configuration]) -> None:
        space, configuration = point
        vector = space.to_unit(configuration)
        for parameter in space.parameters:
            part = vector[space.slices[parameter.name]]
            active = parameter.name in configuration
            assert all(math.isnan(u) is not active for u in part)
            conditions = (parameter.when or {}).items()
            assert active == all(
                parent in configuration
                and any(
                    type(configuration[parent]) is type(value) and configuration[parent] == value for value in allowed
                )
                for parent, allowed in conditions
            )

    @given(spaces())
    def test_json_and_back_is_the_same_space(self, space: Space) -> None:
        assert Space.from_json(space.to_json()) == space

    @given(points(), st.data())
    def test_fixing_parameters_leaves_the_rest_valid(
        self, point: tuple[Space, Configuration], data: st.DataObject
    ) -> None:
        """Given some values of a configuration are fixed, the others are a configuration of what is left."""
        space, configuration = point
        fixed_names = data.draw(st.sets(st.sampled_from(sorted(configuration))))
        rest = {name: value for name, value in configuration.items() if name not in fixed_names}
        inactive = [name for name in space.by_name if name not in configuration]
        fixed = {name: configuration[name] for name in fixed_names}
        if not rest:
            return
        left = space.without(fixed_names, fixed)
        assert set(left.by_name) <= set(rest) | set(inactive)
        left.check(rest)

    @given(points())
    def test_what_a_wider_space_holds_includes_all_before(self, point: tuple[Space, Configuration]) -> None:
        space, configuration = point
        wider = Space(tuple(widened(parameter) for parameter in space.parameters))
        assert space.widening_faults(wider) == []
        wider.check(configuration)
        changed = [old for old, new in zip(space.parameters, wider.parameters, strict=True) if old != new]
        assert len(wider.widening_faults(space)) == len(changed)

    def test_a_vector_of_the_wrong_length_is_refused(self) -> None:
        with pytest.raises(InvalidConfiguration, match="5 dimensions, not 2"):
            Space.of(Bool("a"), Schedule()).from_unit([0.1, 0.2])

    @given(st.lists(UNIT, min_size=1, max_size=30))
    def test_a_discrete_space_has_no_more_points_than_its_cardinality(self, us: list[float]) -> None:
        space = Space.of(Int("n", 0, 6, step=3), Categorical("c", ["a", "b"]), Bool("flag"))
        found = {tuple(space.from_unit([u, 1 - u, u * u]).items()) for u in us}
        assert len(found) <= space.cardinality == 12


def widened(parameter: AnyParameter) -> AnyParameter:
    change: dict[str, object]
    match parameter:
        case Float(log=True):
            change = {"low": parameter.low / 2, "high": parameter.high * 2}
        case Float() | Int() if parameter.step is not None:
            change = {"high": parameter.high + parameter.step}
        case Float() | Int():
            change = {"high": parameter.high + 1}
        case Categorical():
            change = {"choices": [*parameter.choices, "one more choice"]}
        case _:
            return parameter
    return type(parameter)(**{**parameter.__dict__, **change})


class TestFaults:
    @pytest.mark.parametrize(
        ("parameters", "place", "words"),
        [
            ([], (), "at least one parameter"),
            ([{"name": "a", "type": "bool"}] * 2, (1, "name"), "'a' stands twice"),
            (
                [{"name": f"p{number}", "type": "bool"} for number in range(MAX_PARAMETERS + 1)],
                (),
                f"at most {MAX_PARAMETERS} parameters, not {MAX_PARAMETERS + 1}",
            ),
            ([{"name": "a", "type": "schedule"}, {"name": "b", "type": "schedule"}], (), "at most one schedule"),
            ([{"name": "a", "type": "bool", "when": {"a": [True]}}], (0, "when", "a"), "cannot depend on itself"),
            ([{"name": "a", "type": "bool", "when": {"b": [True]}}], (0, "when", "b"), "which is not in the space"),
            (
                [{"name": "a", "type": "bool", "when": {"b": [True]}}, {"name": "b", "type": "bool"}],
                (0, "when", "b"),
                "must stand before it",
            ),
            (
                [
                    {"name": "a", "type": "bool", "when": {"b": [True]}},
                    {"name": "b", "type": "bool", "when": {"c": [True]}},
                    {"name": "c", "type": "bool", "when": {"a": [True]}},
                ],
                (0, "when", "b"),
                "a cycle",
            ),
            (
                [{"name": "a", "type": "bool"}, {"name": "b", "type": "bool", "when": {"a": []}}],
                (1, "when", "a"),
                "at least one value of 'a'",
            ),
            (
                [
                    {"name": "a", "type": "categorical", "choices": ["x"]},
                    {"name": "b", "type": "bool", "when": {"a": ["y"]}},
                ],
                (1, "when", "a"),
                "can never be active",
            ),
        ],
    )
    def test_a_contradiction_says_where_and_why(
        self, parameters: list[object], place: tuple[object, ...], words: str
    ) -> None:
        with pytest.raises(InvalidSpace, match=words) as caught:
            Space.from_json(parameters)
        assert any(fault.loc == place and words in fault.msg for fault in caught.value.errors)

    @pytest.mark.parametrize(
        ("parameter", "place", "words"),
        [
            ({"name": "a", "type": "number"}, (0,), "float"),
            ({"name": "a", "low": 0, "high": 1}, (0,), "type"),
            ({"name": "a", "type": "float", "low": 0.0}, (0, "high"), "required"),
            ({"name": "", "type": "bool"}, (0, "name"), "at least 1 character"),
            ({"name": "a", "type": "bool", "hidden": 1}, (0, "hidden"), "nexpected"),
            ({"name": "a", "type": "categorical", "choices": []}, (0, "choices"), "at least 1 item"),
            ({"name": "a", "type": "float", "low": 1, "high": 1}, (0,), "low must be less than high"),
            ({"name": "a", "type": "float", "low": 0, "high": 1, "log": True}, (0,), "low must be greater than 0"),
        ],
    )
    def test_a_malformed_parameter_says_which_field(
        self, parameter: object, place: tuple[object, ...], words: str
    ) -> None:
        with pytest.raises(InvalidSpace) as caught:
            Space.from_json([parameter])
        assert any(fault.loc == place and words in fault.msg for fault in caught.value.errors), caught.value.errors

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["name", "type", "low", "high", "log", "step", "choices", "when", "role", "other"]),
                st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(),
                    st.floats(),
                    st.sampled_from(["float", "int", "categorical", "bool", "schedule", "a", "\x00", "\ud800"]),
                    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
                    st.dictionaries(st.text(max_size=2), st.lists(st.booleans(), max_size=2), max_size=2),
                ),
            ),
            max_size=4,
        )
    )
    def test_whatever_is_sent_is_a_space_or_refused(self, value: list[object]) -> None:
        try:
            space = Space.from_json(value)
        except InvalidSpace as error:
            refusal: InvalidSpace | None = error
        else:
            refusal = None
            space.check(space.from_unit([0.5] * space.dimensions))
        assert refusal is None or (refusal.message and refusal.errors)

    @pytest.mark.parametrize("value", [None, 3, "space", {"name": "a"}, [[]], [None]])
    def test_what_is_no_list_of_parameters_is_refused(self, value: object) -> None:
        with pytest.raises(InvalidSpace):
            Space.from_json(value)


class TestCheck:
    SPACE = Space.of(
        Categorical("optimizer", ["sgd", "adamw"]),
        Float("momentum", 0.0, 0.99, when={"optimizer": ["sgd"]}),
        Int("width", 16, 64, step=16),
    )

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"optimizer": "sgd", "width": 32}, "momentum is missing"),
            ({"optimizer": "adamw", "momentum": 0.9, "width": 32}, "momentum is not active here: leave it out"),
            ({"optimizer": "adam", "width": 32}, "optimizer must be one of"),
            ({"optimizer": "adamw", "width": 40}, "width must be 16 plus a multiple of 16, not 40"),
            ({"optimizer": "adamw", "width": True}, "width must be an integer"),
            ({"optimizer": "adamw", "width": 16, "depth": 2}, "depth is no parameter of this space"),
            ({"optimizer": "sgd", "momentum": math.nan, "width": 16}, "momentum must lie from 0 to 0.99"),
        ],
    )
    def test_a_wrong_configuration_is_refused(self, values: Configuration, words: str) -> None:
        with pytest.raises(InvalidConfiguration) as caught:
            self.SPACE.check(values)
        assert words in caught.value.message


class TestWidening:
    OLD = Space.of(Float("a", 1.0, 2.0), Int("b", 0, 8, step=4), Categorical("c", ["x", "y"]), Bool("d"))

    @pytest.mark.parametrize(
        ("changed", "place", "words"),
        [
            (Float("a", 1.5, 2.0), (0,), r"must hold \[1, 2\]"),
            (Float("a", 0.5, 2.0, log=True), (0,), "log and step cannot change"),
            (Int("b", -3, 8, step=4), (1,), "must stay on the grid"),
            (Categorical("c", ["y", "x", "z"]), (2,), "must begin with"),
            (Categorical("c", ["x", "y"], ordered=True), (2,), "ordered cannot change"),
            (Bool("d", role="other"), (3,), "conditions and roles cannot change"),
            (Int("a", 0, 3), (), "the same parameters in the same order: a, b, c, d"),
        ],
    )
    def test_what_is_no_widening_says_why(self, changed: AnyParameter, place: tuple[int, ...], words: str) -> None:
        parameters = [changed if one.name == changed.name else one for one in self.OLD.parameters]
        (fault,) = self.OLD.widening_faults(Space(tuple(parameters)))
        assert fault.loc == place
        assert re.search(words, fault.msg), fault.msg
