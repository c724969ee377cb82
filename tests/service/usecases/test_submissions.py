"""Submissions: what the network fills in, and what is refused with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.errors import InvalidExperiment, InvalidRequest
from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.parameters import Categorical, Float
from foretune.states import ExperimentState
from service.usecases import networks
from tests.service.usecases.conftest import NETWORK

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

LR: JsonObject = {"name": "lr", "type": "float", "low": 1e-3, "high": 1.0, "log": True}


class TestManaged:
    @pytest.fixture(autouse=True)
    def _published(self, published: None) -> None:
        pass

    def test_everything_but_the_task_has_a_default(self, world: World) -> None:
        made = world.submit_managed()
        assert made.state is ExperimentState.QUEUED
        assert made.name == "digits-tiny"
        assert [parameter.name for parameter in made.space] == [
            "learning_rate",
            "width",
            "label_smoothing",
            "lr_schedule",
        ]
        assert (made.metric.name, made.metric.goal) == ("val_loss", Goal.MINIMIZE)
        assert (made.budget.max_trials, made.budget.max_epochs) == (32, 20)
        assert made.last_event == 1
        assert world.experiment(made.id) == made

    def test_the_usual_goal_goes_with_the_name_of_a_metric(self, world: World) -> None:
        made = world.submit_managed(metric={"name": "val_accuracy", "goal": "maximize"})
        assert made.metric.goal is Goal.MAXIMIZE

    @pytest.mark.parametrize(
        ("metric", "words"),
        [
            ({"name": "val_loss", "goal": "maximize"}, "val_loss is better when it is lower: its goal is minimize"),
            ({"name": "val_accuracy", "goal": "minimize"}, "val_accuracy is better when it is higher: its goal is max"),
        ],
    )
    def test_a_goal_that_makes_networks_worse_is_refused(self, world: World, metric: JsonObject, words: str) -> None:
        with pytest.raises(InvalidExperiment, match=words) as caught:
            world.submit_managed(metric=metric)
        assert [fault.loc for fault in caught.value.errors] == [("body", "metric", "goal")]

    def test_a_schedule_without_a_learning_rate_gets_the_networks(self, world: World) -> None:
        """Given a peak that is neither searched nor fixed, it is the network's default, and the experiment says so."""
        made = world.submit_managed(space=[{"name": "lr_schedule", "type": "schedule"}])
        assert made.fixed == {"learning_rate": 0.01}
        assert world.submit_managed(space=[LR]).fixed == {}

    def test_a_fixed_hyperparameter_leaves_the_space(self, world: World) -> None:
        made = world.submit_managed(fixed={"width": 48})
        assert "width" not in [parameter.name for parameter in made.space]
        assert made.fixed == {"width": 48}

    def test_what_the_network_can_be_trained_with_may_be_fixed_though_it_is_no_default_choice(
        self, world: World
    ) -> None:
        """As with numbers beyond a default range. In a space of the client's own it must be one of the choices."""
        widths = Categorical("width", [16, 32], ordered=True)
        chosen = NETWORK.model_copy(update={"name": "wide", "space": [widths, Float("learning_rate", 1e-3, 1.0)]})
        with world.database.transaction() as tx:
            networks.publish(tx, [chosen])
        made = world.submit_managed(network="wide", fixed={"width": 48})
        assert ([one.name for one in made.space], made.fixed) == (["learning_rate"], {"width": 48})
        with pytest.raises(InvalidExperiment, match="width must lie from 1 to 1024"):
            world.submit_managed(network="wide", fixed={"width": 4096})
        own: list[JsonValue] = [{"name": "width", "type": "categorical", "choices": [16, 32]}, LR]
        with pytest.raises(InvalidExperiment, match="width must be one of"):
            world.submit_managed(network="wide", space=own, fixed={"width": 48})

    @pytest.mark.parametrize(
        ("changes", "place", "words"),
        [
            ({"dataset": None}, ("body", "dataset"), "a managed experiment needs a dataset"),
            ({"network": None}, ("body", "network"), "a managed experiment needs a network"),
            ({"dataset": "mnist"}, ("body", "dataset"), "there is no data set 'mnist'; there are"),
            ({"network": "vit"}, ("body", "network"), "there is no network 'vit'; there are tiny"),
            ({"dataset": "houses"}, ("body", "network"), "does classification; dataset 'houses' is regression"),
            ({"dataset": "words"}, ("body", "network"), "reads tabular data; dataset 'words' can be read as text"),
            ({"features": {"rows": 5}}, ("body", "features"), "takes its features from the dataset"),
            (
                {"metric": {"name": "loss", "goal": "minimize"}},
                ("body", "metric"),
                "reports val_loss, val_accuracy here, not 'loss'",
            ),
            ({"fixed": {"widht": 4}}, ("body", "fixed", "widht"), "did you mean 'width'?"),
            ({"fixed": {"width": 4096}}, ("body", "fixed", "width"), "must lie from 1 to 1024"),
            ({"space": [LR, {**LR, "name": "alpha"}]}, ("body", "space", 1), "is no hyperparameter of it"),
            (
                {"space": [{**LR, "name": "width", "low": 1, "high": 9}]},
                ("body", "space", 0),
                "takes integers: give it the type int",
            ),
            ({"space": [LR], "fixed": {"learning_rate": 0.1}}, ("body", "space", 0), "means the same as"),
            (
                {"fixed": {"learning_rate": 0.1, "width": 16, "label_smoothing": 0.0, "lr_schedule": {}}},
                ("body", "fixed"),
                "every hyperparameter is fixed",
            ),
            ({"priors": ["exp_unknown"]}, ("body", "priors", 0), "there is no experiment 'exp_unknown'"),
        ],
    )
    def test_what_does_not_fit_says_where_and_why(
        self, world: World, changes: JsonObject, place: tuple[str | int, ...], words: str
    ) -> None:
        with pytest.raises(InvalidExperiment) as caught:
            world.submit_managed(**changes)
        assert any(fault.loc == place and words in fault.msg for fault in caught.value.errors), caught.value.errors


class TestExternal:
    @pytest.mark.parametrize(
        ("changes", "place", "words"),
        [
            ({"space": None}, "space", "needs a space"),
            ({"metric": None}, "metric", "needs a metric"),
            ({"dataset": "digits"}, "dataset", "has no dataset: describe the task with `features`"),
            ({"network": "tiny"}, "network", "has no network"),
        ],
    )
    def test_what_it_needs_and_what_it_has_not(self, world: World, changes: JsonObject, place: str, words: str) -> None:
        with pytest.raises(InvalidExperiment) as caught:
            world.submit(**changes)
        (fault,) = caught.value.errors
        assert fault.loc == ("body", place)
        assert words in fault.msg

    def test_a_fixed_choice_decides_what_depends_on_it(self, world: World) -> None:
        space: list[JsonValue] = [
            {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adamw"]},
            {"name": "momentum", "type": "float", "low": 0, "high": 0.9, "when": {"optimizer": ["sgd"]}},
            {"name": "beta", "type": "float", "low": 0, "high": 0.9, "when": {"optimizer": ["adamw"]}},
        ]
        made = world.submit(space=space, fixed={"optimizer": "sgd"})
        assert [parameter.name for parameter in made.space] == ["momentum"]
        (trial,) = world.ask(made.id)
        assert set(trial.hyperparameters) == {"optimizer", "momentum"}

    def test_a_fixed_choice_that_is_none_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidExperiment, match="must be one of"):
            world.submit(
                space=[LR, {"name": "optimizer", "type": "categorical", "choices": ["sgd"]}],
                fixed={"optimizer": "adam"},
            )

    def test_a_prior_may_be_any_experiment_of_the_project(self, world: World, strangers: World) -> None:
        first = world.submit()
        assert world.submit(priors=[first.id]).priors == [first.id]
        with pytest.raises(InvalidExperiment, match="in this project"):
            strangers.submit(priors=[first.id])

    @pytest.mark.parametrize("name", ["lr", "learning_rate", "peak_lr"])
    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_a_schedule_needs_a_positive_peak(self, world: World, name: str, low: float) -> None:
        """Given a learning rate that may be 0, no schedule could be made of it: that is said when it is submitted."""
        space: list[JsonValue] = [
            {"name": name, "type": "float", "low": low, "high": 1.0, "step": 0.5},
            {"name": "lr_schedule", "type": "schedule"},
        ]
        with pytest.raises(InvalidRequest, match="greater than 0"):
            world.submit(space=space)
        assert world.submit(space=space[:1]).id

    @pytest.mark.parametrize("value", [0.0, -0.1, "fast", True, None])
    def test_so_does_a_fixed_one(self, world: World, value: JsonValue) -> None:
        with pytest.raises(InvalidRequest, match="greater than 0"):
            world.submit(fixed={"lr": value})

    def test_a_fixed_learning_rate_is_the_peak(self, world: World) -> None:
        made = world.submit(fixed={"lr": 0.25})
        (trial,) = world.ask(made.id)
        assert trial.lr_schedule is not None
        assert trial.lr_schedule.peak == 0.25

    def test_a_fixed_schedule_goes_with_every_trial(self, world: World) -> None:
        made = world.submit(fixed={"lr_schedule": {"warmup_fraction": 0.5}})
        (trial,) = world.ask(made.id)
        assert trial.lr_schedule is not None
        assert trial.lr_schedule.warmup_fraction == 0.5
        assert trial.lr_schedule.peak == trial.hyperparameters["lr"]
        assert len(trial.lr_schedule.values) == 3
        assert "lr_schedule" not in trial.hyperparameters

    def test_a_wrong_fixed_schedule_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidRequest, match="warmup_fraction must be a number"):
            world.submit(fixed={"lr_schedule": {"warmup_fraction": 5}})
