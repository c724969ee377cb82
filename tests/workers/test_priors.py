"""A service that remembers: the first proposals of an experiment come from what its project has seen before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from foretune.wire.experiments import ExperimentPatch
from metalearner import Effort
from service.usecases import experiments, histories
from tests.service.usecases.conftest import World
from workers.proposals import Proposals

if TYPE_CHECKING:
    from service.bus import Bus
    from service.db.session import Database
    from tests.conftest import Project

SPACE: list[JsonValue] = [
    {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 4},
]
FEATURES: JsonObject = {"rows": 1000, "classes": 3, "modality": "image"}


@pytest.fixture
def strangers(database: Database, bus: Bus, other_project: Project) -> World:
    return World(database, bus, other_project.id)


def loss(configuration: JsonObject) -> float:
    """Best at lr = 0.01 and two layers."""
    rate = math.log10(float(configuration["lr"]))  # type: ignore[arg-type]
    return (rate + 2.0) ** 2 + 0.5 * abs(float(configuration["layers"]) - 2.0)  # type: ignore[arg-type]


def remember(world: World, name: str = "before", **changes: JsonValue) -> None:
    """Imports a finished experiment with 30 random trials."""
    space = Space.from_json(SPACE)
    seed = sum(map(ord, name))
    points = np.random.default_rng(seed).random((30, space.dimensions)).tolist()
    trials: list[JsonValue] = [
        {"hyperparameters": configuration, "value": loss(configuration)}
        for configuration in (space.from_unit(point) for point in points)
    ]
    line: JsonObject = {
        "name": name,
        "space": SPACE,
        "metric": "val_loss",
        "max_epochs": 3,
        "features": FEATURES,
        "trials": trials,
        **changes,
    }
    with world.database.transaction() as tx:
        assert histories.import_line(tx, world.project, orjson.dumps(line))


def submit(world: World, **changes: JsonValue) -> str:
    """An experiment on a like task, whose parameters have other names and ranges."""
    request: JsonObject = {
        "space": [
            {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 10.0, "log": True},
            {"name": "depth", "type": "int", "low": 1, "high": 8},
        ],
        "metric": {"name": "val_loss", "goal": "minimize"},
        "features": FEATURES,
        "budget": {"max_trials": 20, "max_epochs": 3},
        **changes,
    }
    return world.submit(**request).id


def origins(world: World, experiment: str, count: int = 7) -> list[str]:
    return [one.origin for one in Proposals(world.database).propose(experiment, count, Effort.FAST)]


def test_the_first_proposals_come_from_histories_and_say_from_which(world: World) -> None:
    remember(world)
    remember(world, "another")
    made = Proposals(world.database).propose(submit(world), 7, Effort.FAST)
    assert [one.origin for one in made] == ["portfolio"] * 5 + ["quasirandom"] * 2
    first = made[0].configuration
    assert loss({"lr": first["learning_rate"], "layers": first["depth"]}) < 0.7
    evidence = made[0].replay["evidence"]
    assert isinstance(evidence, list)
    assert evidence
    assert all(isinstance(one, dict) and str(one["experiment"]).startswith("his_") for one in evidence)
    assert all(isinstance(one, dict) and 0.0 < float(str(one["similarity"])) < 1.0 for one in evidence)
    assert isinstance(made[0].replay["histories"], dict)
    assert made[0].replay["histories"]["count"] == 2
    assert "evidence" not in made[5].replay
    assert made[0].replay["gate"] == made[5].replay["gate"] == 1.0


def test_another_worker_makes_the_same_proposals_whatever_was_learned_since(world: World) -> None:
    remember(world)
    experiment = submit(world)
    before = Proposals(world.database).propose(experiment, 7, Effort.FAST)
    remember(world, "afterwards")
    assert Proposals(world.database).propose(experiment, 7, Effort.FAST) == before


def test_a_finished_experiment_counts_at_once(world: World) -> None:
    """Given upkeep has not come by, the next experiment learns from it all the same."""
    first = submit(world)
    for trial in world.ask(first, count=12):
        hyperparameters = {"lr": trial.hyperparameters["learning_rate"], "layers": trial.hyperparameters["depth"]}
        world.complete(trial.id, trial.lease.token, value=loss(hyperparameters))
    with world.database.transaction() as tx:
        experiments.cancel(tx, world.bus, world.project, first)
    made = Proposals(world.database).propose(submit(world), 1, Effort.FAST)
    assert made[0].origin == "portfolio"
    evidence = made[0].replay["evidence"]
    assert isinstance(evidence, list)
    assert isinstance(evidence[0], dict)
    assert evidence[0]["experiment"] == first


def test_nothing_is_learned_from_strangers_or_against_the_users_will(world: World, strangers: World) -> None:
    cold = Proposals(world.database).propose(submit(world), 7, Effort.FAST)
    remember(strangers)
    assert Proposals(world.database).propose(submit(world), 7, Effort.FAST) == cold
    remember(world)
    told_not_to = Proposals(world.database).propose(submit(world, priors="none"), 7, Effort.FAST)
    assert [(one.configuration, one.origin) for one in told_not_to] == [(one.configuration, one.origin) for one in cold]
    assert "histories" not in told_not_to[0].replay


def test_named_priors_are_the_only_ones(world: World) -> None:
    remember(world)
    named = submit(world)
    assert "portfolio" not in origins(world, submit(world, priors=[named]))


def test_a_widened_space_keeps_what_was_learned(world: World) -> None:
    remember(world)
    space: list[JsonValue] = [{"name": "lr", "type": "float", "low": 1e-3, "high": 0.1, "log": True}]
    experiment = submit(world, space=space)
    proposals = Proposals(world.database)
    proposals.propose(experiment, 1, Effort.FAST)
    wider: list[JsonValue] = [{"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True}]
    patch = ExperimentPatch.model_validate({"space": wider})
    with world.database.transaction() as tx:
        experiments.patch(tx, world.bus, world.project, experiment, patch)
    assert proposals.propose(experiment, 1, Effort.FAST)[0].origin == "portfolio"


def test_which_histories_count_can_be_asked(world: World) -> None:
    remember(world, "near")
    remember(world, "far", features={"rows": 10**6, "classes": 900, "modality": "text"})
    remember(world, "unrelated", features={"classes": 0})
    experiment = submit(world)
    told = Proposals(world.database).priors(experiment)
    assert isinstance(told["histories"], list)
    assert [one["name"] for one in told["histories"] if isinstance(one, dict)] == ["near", "far"]
    assert told["considered"] == 3


def test_the_gate_says_what_the_results_did_to_it(world: World) -> None:
    """Given results that are worst where the histories were best, it shuts, and proposals are cold."""
    for name in ("one", "two", "three", "four"):
        remember(world, name)
    experiment = submit(world)
    for trial in world.ask(experiment, count=6):
        hyperparameters = {"lr": trial.hyperparameters["learning_rate"], "layers": trial.hyperparameters["depth"]}
        world.complete(trial.id, trial.lease.token, value=9.0 - loss(hyperparameters))
    proposals = Proposals(world.database)
    gate = proposals.priors(experiment)["gate"]
    assert isinstance(gate, dict)
    assert (gate["trust"], gate["results"]) == (0.0, 6)
    assert str(gate["says"]).startswith("shut")
    assert {one.origin for one in proposals.propose(experiment, 3, Effort.FAST)} <= {"gp", "quasirandom"}
