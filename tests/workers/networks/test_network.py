"""What may be tuned, and under which names."""

import pytest

from foretune.errors import InvalidConfiguration, InvalidSpace, NotFound
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.networks import TRAINING_DEFAULTS, Network, get_network, networks

every_network = pytest.mark.parametrize("network", networks().values(), ids=lambda network: network.name)


@every_network
def test_defaults_are_a_point_of_the_default_space(network):
    for task in network.tasks:
        space = network.space_for(task)
        configuration = network.default_configuration(space)
        space.check(configuration)
        assert all(configuration[name] == network.defaults[name] for name in configuration)


@every_network
def test_default_spaces_can_be_trained_all_over(network):
    for task in network.tasks:
        network.check_space(network.space_for(task), {})


@every_network
def test_roles_are_those_that_the_meta_learner_knows(network):
    from foretune.roles import ROLES

    assert {network.space.role_of(parameter.name) for parameter in network.space.parameters} <= set(ROLES)


@every_network
def test_label_smoothing_is_searched_for_classification_alone(network):
    for task in network.tasks:
        assert ("label_smoothing" in network.space_for(task).by_name) == (task is Task.CLASSIFICATION)


def test_what_is_not_given_has_its_default():
    mlp = get_network("mlp")
    values = mlp.resolve({"width": 77})
    assert values["width"] == 77
    assert values["depth"] == 2
    assert values["beta2"] == TRAINING_DEFAULTS["beta2"]


def test_other_names_and_roles_are_understood():
    mlp = get_network("mlp")
    space = Space.of(
        Float("lr", 1e-4, 1.0, log=True), Int("hidden_size", 8, 64), Float("forget", 0.0, 0.4, role="dropout")
    )
    values = mlp.resolve({"lr": 0.5, "hidden_size": 9, "forget": 0.2}, space)
    assert (values["learning_rate"], values["width"], values["dropout"]) == (0.5, 9, 0.2)
    mlp.check_space(space, {"bs": 32})
    assert set(mlp.default_configuration(space)) == {"lr", "hidden_size", "forget"}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"learnin_rate": 0.1}, "did you mean 'learning_rate'"),
        ({"learning_rate": 0.0}, "learning_rate must lie from"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"dropout": True}, "dropout must be a number"),
        ({"lr": 0.1, "learning_rate": 0.2}, "means the same as 'lr'"),
        ({"lr_schedule": {"warmup_fraction": 2.0}}, "warmup_fraction must be a number from 0 to 1"),
    ],
)
def test_fixed_values_that_cannot_be_trained_are_refused(fixed, message):
    with pytest.raises(InvalidConfiguration, match=message) as refused:
        get_network("mlp").check_fixed(fixed)
    assert refused.value.errors


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (Float("depht", 0.0, 1.0), "did you mean 'depth'"),
        (Float("width", 8.0, 64.0), "takes integers"),
        (Int("width", 0, 64), "must lie from 1 to 8192, not 0"),
        (Float("dropout", 0.0, 1.0), "must lie from 0 to 0.95"),
        (Categorical("optimizer", ["sgd", "lion"]), "'lion'"),
        (Bool("optimizer"), "must be one of"),
        (Float("lr_schedule", 0.0, 1.0), "must be of type schedule, not float"),
        (Schedule("width"), "must be of type int, not schedule"),
        (Float("lr", 1e-3, 1.0), "means the same as 'learning_rate'"),
    ],
)
def test_spaces_that_cannot_be_trained_all_over_are_refused(parameter, message):
    space = Space.of(Int("depth", 1, 3), parameter)
    with pytest.raises(InvalidSpace, match=message) as refused:
        get_network("mlp").check_space(space, {"learning_rate": 0.1})
    assert [fault.loc for fault in refused.value.errors] == [(1,)]


def test_a_default_outside_a_clients_range_becomes_its_nearest_end():
    mlp = get_network("mlp")
    space = Space.of(Int("width", 8, 64), Categorical("batch_size", [10, 20]), Float("lr", 1e-6, 1e-4, log=True))
    configuration = mlp.default_configuration(space)
    space.check(configuration)
    assert configuration["width"] == 64
    assert configuration["lr"] == pytest.approx(1e-4)


def test_a_network_without_a_default_is_a_mistake():
    with pytest.raises(InvalidSpace, match="gives no default for temperature"):
        Network(
            name="strange",
            description="",
            tasks=(Task.REGRESSION,),
            views=("tabular",),
            space=Space.of(Float("temperature", 0.1, 2.0)),
            build=lambda values, shape: None,
            defaults={},
        )


def test_views_are_chosen_by_preference():
    assert get_network("mlp").view_for(("image", "tabular", "sequence")) == "tabular"
    assert get_network("gru").view_for(("text",)) == "text"
    assert get_network("cnn").view_for(("tabular",)) is None


def test_an_unknown_network_is_answered_with_those_there_are():
    with pytest.raises(NotFound, match="no network 'resnet'; there are mlp, cnn, gru, transformer"):
        get_network("resnet")
