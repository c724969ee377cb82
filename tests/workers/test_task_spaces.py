"""A project's space of tasks: learned with its model, used where it wins on families left out, and kept with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from sqlalchemy import update

from foretune.json_types import JsonObject
from foretune.wire.histories import TaskSpaceScores
from metalearner import FeatureLikeness, SpaceLikeness, Task, TaskHistory
from metalearner.task_judging import ARMS, judge
from metalearner.task_training import train
from service.db import models
from service.db.tables import models as model_table
from service.usecases import fitting, histories, metalearner
from tests.metalearner.tasks_of_families import SPACE, families, task
from tests.service.usecases.conftest import World
from workers.fitting import fit_project
from workers.likeness import likeness_of
from workers.neighbours import neighbours
from workers.priors import task_history
from workers.process import WorkerProcess
from workers.proposals import Proposals
from workers.recommending import TaskRecommendations

if TYPE_CHECKING:
    from foretune.wire.histories import FittedVersion

HISTORIES, FAMILIES = families(14, 3)


def remember(world: World, told: list[TaskHistory], names: list[str]) -> None:
    for one, family in zip(told, names, strict=True):
        line: JsonObject = {
            "name": one.reference,
            "dataset": family,
            "space": SPACE.to_json(),
            "metric": "val_loss",
            "max_epochs": 3,
            "features": dict(one.task.features),
            "trials": [
                {"hyperparameters": {name: column[place] for name, column in one.columns.items()}, "value": value}
                for place, value in enumerate(one.values)
            ],
        }
        with world.database.transaction() as tx:
            assert histories.import_line(tx, world.project, orjson.dumps(line))


def begin(world: World) -> None:
    with world.database.transaction() as tx:
        assert fitting.request(tx, world.project, again=False)


def newest(world: World) -> FittedVersion:
    with world.database.reading() as tx:
        return metalearner.describe(tx, world.project).versions[0]


def space_of(world: World, version: int) -> bytes | None:
    with world.database.reading() as tx:
        return fitting.space(tx, world.project, version)


def folds(world: World) -> int:
    with world.database.reading() as tx:
        return len(models.listed(tx, world.project)[0].space_folds or ())


def unseen() -> tuple[Task, float]:
    """A task like none of the families, and where its best learning rate lies."""
    return task("unseen", np.array([0.25, 0.7]), np.random.default_rng(5)), 0.25


def asked(world: World) -> JsonObject:
    new, _ = unseen()
    question: JsonObject = {"project": world.project, "dataset": "dst_unseen", "network": None, "limit": 10}
    return neighbours(world.database, {**question, "features": dict(new.features)})


def priors(world: World, experiment: str) -> JsonObject:
    return Proposals(world.database).priors(experiment)


def test_it_is_learned_judged_and_used_by_what_begins_then(world: World, process: WorkerProcess) -> None:
    remember(world, HISTORIES, FAMILIES)
    new, rate = unseen()
    submission: JsonObject = {
        "space": SPACE.to_json(),
        "features": dict(new.features),
        "metric": {"name": "val_loss", "goal": "minimize"},
    }
    before = world.submit(**submission)
    assert asked(world)["space"] == "features"
    begin(world)
    fit_project(process, world.project, stay_s=300.0)
    after = world.submit(**submission)

    found = newest(world)
    assert (found.version, found.state) == (1, "CHAMPION")
    assert found.space is not None
    assert (found.space.used, found.space.families) == (True, 14)
    regret = found.space.regret
    assert regret["space"][0] < min(regret["unweighted"][0], regret["features"][0])

    answer = asked(world)
    assert answer["space"] == "learned"
    near = answer["neighbours"]
    assert isinstance(near, list)
    alike = [_rate(one) for one in near[:6]]
    others = [float(one.task.features["landmark_linear"]) for one in HISTORIES]
    assert np.mean([abs(one - rate) for one in alike]) < 0.6 * np.mean([abs(one - rate) for one in others])

    # Whoever began before goes on as it began, so that its proposals can be made again.
    old, pinned = (priors(world, one.id) for one in (before, after))
    assert (old["space"], pinned["space"]) == ("features", "learned")
    learned = likeness_of(space_of(world, 1))
    assert isinstance(learned, SpaceLikeness)
    (most,) = learned.weights(Task("val_loss", new.goal, None, None, new.features), [_named(near[0])])
    assert pinned["histories"][0]["similarity"] == pytest.approx(most)  # type: ignore[call-overload,index]

    answer = TaskRecommendations(world.database).recommend(_question(world, new))
    assert answer["confidence"] != "none"
    with world.database.transaction() as tx:
        # As a version of a later release, which wrote another format.
        tx.connection.execute(update(model_table).values(space=b"of another release"))
    assert asked(world)["space"] == "features"
    assert priors(world, after.id)["space"] == "features"


class Interrupted(WorkerProcess):
    """Is asked to stop a few steps into whatever it does."""

    looked = 0

    def draining(self) -> bool:
        self.looked += 1
        return self.looked > 3


def test_a_fit_goes_on_from_the_fold_where_its_worker_stopped(world: World, process: WorkerProcess) -> None:
    remember(world, HISTORIES, FAMILIES)
    begin(world)
    for _ in HISTORIES:
        assert folds(world) == 0, "a kernel a message, while there is no time"
        fit_project(process, world.project, stay_s=0.0)
    fit_project(process, world.project, stay_s=0.0)
    fit_project(process, world.project, stay_s=0.0)
    assert folds(world) == 2
    interrupted = Interrupted("wrk_other", process.database, process.bus, process.artifacts)
    fit_project(interrupted, world.project, stay_s=300.0)
    assert interrupted.looked == 4
    assert (newest(world).state, folds(world)) == ("FITTING", 2)
    fit_project(process, world.project, stay_s=300.0)
    assert newest(world).state == "CHAMPION"

    with world.database.reading() as tx:
        (fit,) = models.listed(tx, world.project)
        stored = fitting.covered(tx, fit)
    told, named = [task_history(one) for one in stored], [str(one.dataset_name) for one in stored]
    judged, whole = (
        judge(told, seed=0, seconds=300.0, families=named),
        train(told, seed=0, seconds=60.0, families=named),
    )
    assert judged is not None
    assert whole is not None
    assert space_of(world, 1) == whole.to_bytes()
    assert newest(world).space == TaskSpaceScores(
        used=True,
        histories=42,
        families=14,
        regret={arm: [judged.regret(arm, after) for after in (1, 5)] for arm in ARMS},
    )

    # While few histories are new it is not learned again.
    more, names = families(1, 3, seed=1)
    remember(world, more, names)
    begin(world)
    fit_project(process, world.project, stay_s=300.0)
    assert newest(world).version == 2
    assert newest(world).experiments == 45
    assert space_of(world, 2) == space_of(world, 1)


def test_where_descriptions_say_nothing_it_is_not_used(world: World, process: WorkerProcess) -> None:
    generator = np.random.default_rng(1)
    described = [HISTORIES[place].task.features for place in generator.permutation(len(HISTORIES))]
    shuffled = [
        TaskHistory(
            one.reference,
            Task(one.task.metric, one.task.goal, None, None, features),
            one.space,
            one.columns,
            one.values,
        )
        for one, features in zip(HISTORIES, described, strict=True)
    ]
    remember(world, shuffled, FAMILIES)
    begin(world)
    fit_project(process, world.project, stay_s=300.0)
    found = newest(world)
    assert found.state == "CHAMPION"
    assert found.space is not None
    assert not found.space.used
    assert space_of(world, 1) is None
    assert asked(world)["space"] == "features"


def test_from_few_histories_none_is_learned(world: World, process: WorkerProcess) -> None:
    remember(world, HISTORIES[:12], FAMILIES[:12])
    begin(world)
    fit_project(process, world.project, stay_s=300.0)
    assert newest(world).state == "CHAMPION"
    assert newest(world).space is None
    assert isinstance(likeness_of(space_of(world, 1)), FeatureLikeness)


def _rate(one: object) -> float:
    assert isinstance(one, dict)
    number = next(place for place, known in enumerate(HISTORIES) if known.reference == one["name"])
    return float(HISTORIES[number].task.features["landmark_linear"])


def _named(one: object) -> Task:
    assert isinstance(one, dict)
    found = next(known.task for known in HISTORIES if known.reference == one["name"])
    return Task("val_loss", found.goal, None, None, found.features)


def _question(world: World, new: Task) -> JsonObject:
    return {
        "project": world.project,
        "space": SPACE.to_json(),
        "metric": "val_loss",
        "goal": "minimize",
        "dataset": None,
        "network": None,
        "features": dict(new.features),
        "defaults": None,
        "max_epochs": 3,
        "count": 1,
    }
