"""What of a network may be set, whatever a client calls it."""

from __future__ import annotations

import pytest

from foretune.errors import InvalidConfiguration, InvalidSpace
from foretune.json_types import JsonObject
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter, Space
from foretune.tunables import Tunables

NETWORK = Tunables(
    "mlp",
    {
        "learning_rate": Float("learning_rate", 1e-8, 1e3, log=True),
        "width": Int("width", 1, 4096),
        "optimizer": Categorical("optimizer", ["sgd", "adamw"]),
        "lr_schedule": Schedule(),
    },
    {"learning_rate": 3e-3, "width": 128, "optimizer": "adamw", "lr_schedule": {"warmup_fraction": 0.05}},
)


class TestResolve:
    @pytest.mark.parametrize("name", ["learning_rate", "lr", "optim.LR", "peak_lr"])
    def test_every_name_of_the_learning_rate_is_understood(self, name: str) -> None:
        assert NETWORK.resolve({name: 0.1})["learning_rate"] == 0.1

    def test_a_role_translates_any_name(self) -> None:
        space = Space.of(Float("alpha", 0.1, 1.0, role="learning_rate"))
        assert NETWORK.resolve({"alpha": 0.5}, space)["learning_rate"] == 0.5

    def test_what_is_not_given_is_the_default(self) -> None:
        assert NETWORK.resolve({"width": 64}) == {**NETWORK.defaults, "width": 64}

    @pytest.mark.parametrize(
        ("given", "place", "words"),
        [
            ({"widht": 64}, "widht", "did you mean 'width'?"),
            ({"temperature": 1.0}, "temperature", "it has learning_rate, lr_schedule, optimizer, width"),
            ({"width": 0}, "width", "must lie from 1 to 4096, not 0"),
            ({"width": 64.5}, "width", "must be an integer"),
            ({"lr": 0.1, "learning_rate": 0.2}, "learning_rate", "means the same as 'lr': give one of them"),
            ({"optimizer": "adam"}, "optimizer", "must be one of ['sgd', 'adamw']"),
        ],
    )
    def test_what_cannot_be_trained_is_refused_by_name(self, given: JsonObject, place: str, words: str) -> None:
        with pytest.raises(InvalidConfiguration) as caught:
            NETWORK.check_fixed(given)
        (fault,) = caught.value.errors
        assert fault.loc == (place,)
        assert words in fault.msg


class TestCheckSpace:
    def test_a_space_within_the_limits_passes(self) -> None:
        space = Space.of(Float("lr", 1e-4, 1.0, log=True), Int("hidden_size", 16, 64), Schedule())
        NETWORK.check_space(space, {"optimizer": "sgd"})

    @pytest.mark.parametrize(
        ("parameter", "words"),
        [
            (Float("lr", 0.0, 1.0), "must lie from 1e-08 to 1000, not 0.0"),
            (Int("width", 16, 8192), "not 8192"),
            (Float("width", 16.0, 64.0), "takes integers: give it the type int"),
            (Categorical("optimizer", ["sgd", "lion"]), "not 'lion'"),
            (Bool("optimizer"), "not False"),
            (Float("lr_schedule", 0.0, 1.0), "must be of type schedule, not float"),
            (Schedule("width"), "must be of type int, not schedule"),
            (Bool("use_amp"), "is no hyperparameter of it"),
        ],
    )
    def test_what_reaches_beyond_them_is_refused(self, parameter: AnyParameter, words: str) -> None:
        with pytest.raises(InvalidSpace) as caught:
            NETWORK.check_space(Space.of(parameter), {})
        (fault,) = caught.value.errors
        assert fault.loc == (0,)
        assert words in fault.msg

    def test_two_names_for_one_hyperparameter_are_refused(self) -> None:
        with pytest.raises(InvalidSpace, match="means the same as 'lr'"):
            NETWORK.check_space(Space.of(Float("lr", 0.1, 1.0), Float("learning_rate", 0.1, 1.0)), {})
        with pytest.raises(InvalidSpace, match="means the same as 'lr'"):
            NETWORK.check_space(Space.of(Float("learning_rate", 0.1, 1.0)), {"lr": 0.1})


class TestDefaultConfiguration:
    def test_the_experts_choice_is_a_point_of_the_space(self) -> None:
        space = Space.of(Float("lr", 1e-4, 1.0, log=True), Categorical("optimizer", ["sgd", "adamw"]), Schedule())
        assert NETWORK.default_configuration(space) == {
            "lr": 3e-3,
            "optimizer": "adamw",
            "lr_schedule": {"warmup_fraction": 0.05},
        }

    def test_a_default_beyond_the_range_becomes_its_nearest_end(self) -> None:
        space = Space.of(Float("lr", 0.01, 1.0, log=True), Int("width", 16, 64, step=16))
        found = NETWORK.default_configuration(space)
        assert found == {"lr": pytest.approx(0.01), "width": 64}
        space.check(found)

    def test_what_the_network_does_not_know_lies_in_the_middle(self) -> None:
        space = Space.of(Float("alpha", 0.0, 4.0), Categorical("optimizer", ["rmsprop"]))
        assert NETWORK.default_configuration(space) == {"alpha": 2.0, "optimizer": "rmsprop"}

    def test_inactive_parameters_stay_out(self) -> None:
        space = Space.of(
            Categorical("optimizer", ["sgd", "adamw"]), Float("momentum", 0.0, 0.9, when={"optimizer": ["sgd"]})
        )
        assert NETWORK.default_configuration(space) == {"optimizer": "adamw"}
