"""Recommendations: what the desk says, as the API says it; and what there is to say when no desk answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.errors import Conflict, InvalidExperiment, NotFound
from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from foretune.wire.datasets import Task
from foretune.wire.recommendations import RecommendationRequest, Recommendations
from service.usecases import datasets, recommendations
from service.usecases.datasets import Upload

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

SPACE: list[JsonValue] = [
    {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 4},
    {"name": "lr_schedule", "type": "schedule"},
]
SHAPE: JsonObject = {
    "warmup_fraction": 0.0,
    "plateau_fraction": 0.0,
    "decay_exponent": 1.0,
    "final_fraction": 0.5,
}


def of_experiment(world: World, experiment_id: str, count: int = 3) -> Recommendations:
    asked = recommendations.for_experiment(world.database, world.bus, world.project, experiment_id, count)
    return world.run(asked)


def of_task(world: World, **request: JsonValue) -> Recommendations:
    read = RecommendationRequest.model_validate(request)
    return world.run(recommendations.for_task(world.database, world.bus, world.project, read))


def tell(world: World, experiment_id: str, values: list[float | None]) -> list[str]:
    """Trials with these results, None for an infeasible one."""
    trials = world.ask(experiment_id, len(values))
    for trial, value in zip(trials, values, strict=True):
        outcome = "infeasible" if value is None else "completed"
        world.complete(trial.id, trial.lease.token, outcome=outcome, value=value)
    return [trial.id for trial in trials]


class TestOfAnExperiment:
    def test_what_the_desk_says_is_made_complete(self, world: World) -> None:
        """Given bare configurations, the answer has the fixed hyperparameters, the schedule's values and the metric."""
        experiment = world.submit(fixed={"batch_size": 32}, budget={"max_trials": 4, "max_epochs": 4})

        def answer(kind: str, payload: JsonObject) -> JsonObject:
            assert (kind, payload) == ("recommend", {"experiment": experiment.id, "count": 2})
            configuration: JsonObject = {"lr": 0.5, "layers": 2, "lr_schedule": SHAPE}
            predicted: JsonObject = {"median": 0.9, "low": 0.8, "high": 0.95}
            item: JsonObject = {"configuration": configuration, "origin": "best_seen", "predicted": predicted}
            return {"confidence": "high", "items": [{**item, "trial": "tri_1"}, {**item, "predicted": None}]}

        with world.desk(answer):
            said = of_experiment(world, experiment.id, 2)
        assert said.confidence == "high"
        assert said.id.startswith("rec_")
        first, second = said.recommendations
        assert (first.rank, second.rank) == (1, 2)
        assert first.hyperparameters == {"batch_size": 32, "lr": 0.5, "layers": 2}
        assert first.lr_schedule is not None
        assert first.lr_schedule.peak == 0.5
        assert first.lr_schedule.values == pytest.approx([0.5, 0.4375, 0.375, 0.3125])
        assert first.predicted is not None
        assert (first.predicted.metric, first.predicted.median) == ("score", 0.9)
        assert (first.trial, second.trial, second.predicted) == ("tri_1", None, None)

    @pytest.mark.parametrize(("goal", "order"), [("maximize", [2, 0, 1]), ("minimize", [1, 0, 2])])
    def test_without_a_desk_it_is_the_best_seen(self, world: World, goal: str, order: list[int]) -> None:
        experiment = world.submit(metric={"name": "score", "goal": goal}, budget={"max_trials": 9, "max_epochs": 3})
        ids = tell(world, experiment.id, [0.5, 0.25, 0.75, None])
        said = of_experiment(world, experiment.id)
        assert [one.trial for one in said.recommendations] == [ids[place] for place in order]
        assert {one.origin for one in said.recommendations} == {"best_seen"}
        assert said.confidence == "low"
        best = world.trial(ids[order[0]])
        assert said.recommendations[0].hyperparameters == best.hyperparameters
        assert said.recommendations[0].lr_schedule == best.lr_schedule

    def test_without_results_they_are_points_of_its_space(self, world: World) -> None:
        experiment = world.submit()
        said = of_experiment(world, experiment.id)
        assert said.confidence == "none"
        check_points(said, 3)

    def test_a_refusal_of_the_desk_is_no_answer(self, world: World) -> None:
        experiment = world.submit()

        def answer(kind: str, payload: JsonObject) -> JsonObject:
            raise NotFound("no such experiment")

        with world.desk(answer):
            assert of_experiment(world, experiment.id).confidence == "none"

    def test_nobody_elses(self, world: World, strangers: World) -> None:
        with pytest.raises(NotFound):
            of_experiment(world, strangers.submit().id)


def check_points(said: Recommendations, count: int) -> None:
    """They are different points of `SPACE`, each with its schedule."""
    space = Space.from_json(SPACE)
    assert len(said.recommendations) == count
    assert len({str(one.hyperparameters) for one in said.recommendations}) == count
    for one in said.recommendations:
        assert one.origin == "quasirandom"
        assert one.lr_schedule is not None
        assert one.lr_schedule.peak == one.hyperparameters["lr"]
        shape = one.lr_schedule.model_dump(exclude={"peak", "values"})
        space.check({**one.hyperparameters, "lr_schedule": shape})


class TestOfATask:
    def test_a_space_alone_gets_points_spread_over_it(self, world: World) -> None:
        said = of_task(world, features={"rows": 5}, space=SPACE, count=5, max_epochs=7)
        check_points(said, 5)
        assert said.confidence == "none"
        assert all(one.lr_schedule is not None and len(one.lr_schedule.values) == 7 for one in said.recommendations)
        assert all(one.predicted is None and one.evidence == [] for one in said.recommendations)

    def test_a_network_gets_its_experts_choice_first(self, world: World, published: None) -> None:
        for task in ({"dataset": "digits"}, {"features": {"rows": 5}}):
            said = of_task(world, network="tiny", max_epochs=10, count=3, **task)
            assert [one.origin for one in said.recommendations] == ["default", "quasirandom", "quasirandom"]
            first = said.recommendations[0]
            assert first.hyperparameters == {"learning_rate": pytest.approx(0.01), "width": 32, "label_smoothing": 0.0}
            assert first.lr_schedule is not None
            assert first.lr_schedule.peak == pytest.approx(0.01)
            assert len(first.lr_schedule.values) == 10

    def test_its_space_may_be_the_clients(self, world: World, published: None) -> None:
        space: list[JsonValue] = [{"name": "lr", "type": "float", "low": 0.05, "high": 1.0}]
        said = of_task(world, dataset="digits", network="tiny", space=space)
        assert said.recommendations[0].hyperparameters == {"lr": pytest.approx(0.05)}
        assert said.recommendations[0].lr_schedule is not None, "the network trains with its own schedule"
        assert said.recommendations[0].lr_schedule.warmup_fraction == 0.1

    def test_a_small_space_has_no_more_than_it_has(self, world: World) -> None:
        said = of_task(world, features={}, space=[{"name": "flag", "type": "bool"}], count=10)
        assert sorted(str(one.hyperparameters["flag"]) for one in said.recommendations) == ["False", "True"]
        assert [one.rank for one in said.recommendations] == [1, 2]

    def test_what_like_histories_say_comes_with_evidence(self, world: World, published: None) -> None:
        def answer(kind: str, payload: JsonObject) -> JsonObject:
            assert kind == "recommend_task"
            assert (payload["project"], payload["network"], payload["count"]) == (world.project, "tiny", 2)
            item: JsonObject = {
                "configuration": {"learning_rate": 0.5, "width": 16, "label_smoothing": 0.1, "lr_schedule": SHAPE},
                "predicted": {"median": 0.5, "low": 0.25, "high": 0.75},
                "evidence": [{"experiment": "exp_1", "similarity": 0.5, "best": 0.25}],
            }
            model: JsonObject = {"version": 3, "experiments": 7, "trials": 70}
            return {"confidence": "low", "items": [item], "model": model}

        with world.desk(answer):
            said = of_task(world, dataset="digits", network="tiny", count=2)
        assert (said.model.version, said.model.experiments, said.model.trials) == (3, 7, 70)
        (one,) = said.recommendations
        assert said.confidence == "low"
        assert one.predicted is not None
        assert one.predicted.metric == "val_loss"
        assert [(evidence.experiment, evidence.similarity) for evidence in one.evidence] == [("exp_1", 0.5)]
        assert one.lr_schedule is not None
        assert one.lr_schedule.peak == 0.5

    @pytest.mark.parametrize(
        ("request_", "place", "words"),
        [
            ({"dataset": "mnist", "network": "tiny"}, ("body", "dataset"), "there is no data set 'mnist'"),
            ({"dataset": "mnist", "space": SPACE}, ("body", "dataset"), "there is no data set 'mnist'"),
            ({"dataset": "digits", "network": "vit"}, ("body", "network"), "there is no network 'vit'"),
            ({"features": {}, "network": "vit"}, ("body", "network"), "there is no network 'vit'"),
            ({"dataset": "houses", "network": "tiny"}, ("body", "network"), "does classification"),
            (
                {"features": {}, "network": "tiny", "space": [{"name": "beta", "type": "bool"}]},
                ("body", "space", 0),
                "is no hyperparameter of it",
            ),
        ],
    )
    def test_what_does_not_fit_says_where_and_why(
        self, world: World, published: None, request_: JsonObject, place: tuple[object, ...], words: str
    ) -> None:
        with pytest.raises(InvalidExperiment) as caught:
            of_task(world, **request_)
        (fault,) = caught.value.errors
        assert fault.loc == place
        assert words in fault.msg

    def test_a_data_set_that_is_still_read_is_a_conflict(self, world: World, published: None) -> None:
        upload = Upload("dst_1", "mine", "mine.csv", None, Task.CLASSIFICATION, "00", 5)
        with world.database.transaction() as tx:
            datasets.register_upload(tx, world.project, upload)
        with pytest.raises(Conflict, match="still being read"):
            of_task(world, dataset="mine", network="tiny")
