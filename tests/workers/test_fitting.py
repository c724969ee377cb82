"""Models of histories: fitted in pieces, judged before they are used, and taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest

from foretune.errors import LeaseLost, NotFound
from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from service.db import models
from service.db.models import ModelState
from service.settings import settings
from service.usecases import fitting, histories, metalearner, upkeep
from service.usecases.fitting import NotPromotable
from tests.service.usecases.conftest import World
from workers.apart import fit_apart
from workers.fitting import fit_project
from workers.process import WorkerProcess
from workers.recommending import TaskRecommendations

if TYPE_CHECKING:
    from foretune.wire.histories import MetaLearner
    from tests.conftest import Project

SPACE: list[JsonValue] = [
    {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "width", "type": "int", "low": 16, "high": 512, "log": True},
]


def remember(world: World, first: int, count: int, *, inverted: bool = False) -> None:
    """Imports finished experiments whose best settings lie together; `inverted`: they say the opposite."""
    space = Space.from_json(SPACE)
    for number in range(first, first + count):
        generator = np.random.default_rng(number)
        best = np.array([0.5, 0.4]) + 0.05 * generator.standard_normal(2)
        points = generator.random((24, 2))
        losses = ((points - best) ** 2).sum(1)
        values = losses.max() - losses if inverted else losses
        trials: list[JsonValue] = [
            {"hyperparameters": space.from_unit(point), "value": float(value)}
            for point, value in zip(points.tolist(), values, strict=True)
        ]
        line: JsonObject = {
            "name": f"job {number}",
            "space": SPACE,
            "metric": "val_loss",
            "max_epochs": 3,
            "features": {"rows": 1000 + number, "classes": 3},
            "trials": trials,
        }
        with world.database.transaction() as tx:
            assert histories.import_line(tx, world.project, orjson.dumps(line))


def begin(world: World, *, again: bool = False) -> bool:
    with world.database.transaction() as tx:
        return fitting.request(tx, world.project, again=again)


def described(world: World) -> MetaLearner:
    with world.database.reading() as tx:
        return metalearner.describe(tx, world.project)


def refit(world: World, process: WorkerProcess, *, again: bool = False) -> MetaLearner:
    begin(world, again=again)
    fit_project(process, world.project)
    return described(world)


def question(world: World, rows: int = 1003) -> JsonObject:
    return {
        "project": world.project,
        "space": SPACE,
        "metric": "val_loss",
        "goal": "minimize",
        "dataset": None,
        "network": None,
        "features": {"rows": rows, "classes": 3},
        "defaults": None,
        "max_epochs": 3,
        "count": 1,
    }


def recommended(world: World) -> JsonObject:
    answer = TaskRecommendations(world.database).recommend(question(world))
    (item,) = answer["items"]  # type: ignore[misc]
    assert isinstance(item, dict)
    assert isinstance(item["configuration"], dict)
    return item["configuration"]


def test_without_histories_there_is_nothing_to_fit(world: World, process: WorkerProcess) -> None:
    assert not begin(world)
    fit_project(process, world.project)
    found = described(world)
    assert (found.version, found.kind, found.versions) == (0, "portfolio", [])


def test_an_answer_says_what_was_heard_and_the_rest_is_worked_out_ahead(world: World) -> None:
    remember(world, 0, 3)
    made = TaskRecommendations(world.database)
    assert not made.work_ahead()
    assert made.recommend(question(world))["model"] == {"version": 0, "experiments": 3, "trials": 72}
    while made.work_ahead():
        pass
    made.recommend(question(world, rows=5))
    assert not made.work_ahead(), "another task in the same space"
    remember(world, 3, 1)
    assert made.recommend(question(world))["model"] == {"version": 0, "experiments": 4, "trials": 96}
    assert made.work_ahead()


def test_a_model_is_judged_and_used(world: World, process: WorkerProcess) -> None:
    remember(world, 0, 6)
    found = refit(world, process)
    assert (found.version, found.kind) == (1, "fitted")
    assert found.model is not None
    assert (found.model.state, found.model.experiments, found.model.trials, found.model.fitted) == (
        "CHAMPION",
        6,
        144,
        6,
    )
    assert found.model.scores["model"] < found.model.scores["random"]
    assert found.model.promoted_at is not None
    assert not begin(world), "no history is new"


def test_only_what_is_new_is_fitted(world: World, process: WorkerProcess) -> None:
    remember(world, 0, 5)
    refit(world, process)
    with world.database.reading() as tx:
        before = models.parts(tx, world.project)
    remember(world, 5, 2)
    found = refit(world, process)
    with world.database.reading() as tx:
        after = models.parts(tx, world.project)
    assert (found.version, found.model and found.model.parent) == (2, 1)
    assert [one.state for one in found.versions] == ["CHAMPION", "RETIRED"]
    assert (len(before), len(after)) == (5, 7)
    assert {one: after[one] for one in before} == before


def test_a_fit_goes_on_where_it_was_left(world: World, process: WorkerProcess) -> None:
    remember(world, 0, 5)
    begin(world)
    for done in range(1, 5):
        fit_project(process, world.project, stay_s=-1.0)
        found = described(world).versions[0]
        assert (found.state, found.fitted) == ("FITTING", done)
        with world.database.reading() as tx:
            assert len(models.parts(tx, world.project)) == done
    fit_project(process, world.project)
    assert described(world).version == 1


def test_whoever_lost_the_lease_writes_nothing(world: World) -> None:
    remember(world, 0, 5)
    begin(world)
    with world.database.transaction() as tx:
        mine = fitting.claim(tx, world.project)
        assert mine is not None
        assert fitting.claim(tx, world.project) is None, "one works on it"
    with world.database.transaction() as tx:
        models.extend(tx, mine, timedelta(0), fitted=0)
    with world.database.transaction() as tx:
        theirs = fitting.claim(tx, world.project)
    assert theirs is not None
    with pytest.raises(LeaseLost), world.database.transaction() as tx:
        fitting.finish(tx, mine, [], [], {}, None)
    with world.database.transaction() as tx:
        fitting.finish(tx, theirs, [], [], {}, None)
    assert described(world).version == 1


def test_upkeep_begins_a_fit_when_enough_is_new_and_rings_for_one_that_was_left(
    world: World, process: WorkerProcess
) -> None:
    remember(world, 0, 3)
    upkeep.sweep(world.database, world.bus)
    assert described(world).versions == [], "of three no replay can judge"
    remember(world, 3, 1)
    upkeep.sweep(world.database, world.bus)
    assert [one.state for one in described(world).versions] == ["FITTING"]
    with world.database.reading() as tx:
        assert models.due(tx) == [world.project]
    fit_project(process, world.project)
    remember(world, 4, 8)
    refit(world, process)
    remember(world, 12, 1)
    with world.database.reading() as tx:
        assert models.due(tx) == [], "one of 13 is too few"
    remember(world, 13, 1)
    with world.database.reading() as tx:
        assert models.due(tx) == [world.project]


class TestWrongOnes:
    """Six jobs that agree, and then eight imported ones that say the opposite."""

    @pytest.fixture(autouse=True)
    def _poisoned(self, world: World, process: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETUNE_STARTER_HISTORY", "false")
        settings.cache_clear()
        remember(world, 0, 6)
        refit(world, process)
        self.good = recommended(world)
        remember(world, 6, 12, inverted=True)

    def test_a_model_that_loses_is_kept_and_refused_and_says_why(self, world: World, process: WorkerProcess) -> None:
        found = refit(world, process)
        assert (found.version, [one.state for one in found.versions]) == (1, ["REFUSED", "CHAMPION"])
        assert found.versions[0].reason is not None
        assert found.versions[0].reason.startswith("worse than the model in use: regret 1.000 instead of 0.0")

    def test_recommendations_do_not_hear_what_made_it_lose(self, world: World, process: WorkerProcess) -> None:
        refit(world, process)
        assert recommended(world) == self.good

    def test_what_comes_later_is_heard_at_once(self, world: World, process: WorkerProcess) -> None:
        refit(world, process)
        remember(world, 18, 1)
        with world.database.reading() as tx:
            assert len(fitting.heard(tx, world.project)) == 7

    def test_later_models_are_not_spoiled_by_it(self, world: World, process: WorkerProcess) -> None:
        refit(world, process)
        remember(world, 18, 2)
        found = refit(world, process)
        assert (found.version, [one.state for one in found.versions]) == (3, ["CHAMPION", "REFUSED", "RETIRED"])
        assert found.versions[0].experiments == 8
        with world.database.reading() as tx:
            assert len(fitting.heard(tx, world.project)) == 8

    def test_whoever_asks_for_a_fit_gives_it_another_chance(self, world: World, process: WorkerProcess) -> None:
        refit(world, process)
        assert not begin(world), "no history is new"
        found = refit(world, process, again=True)
        assert [(one.state, one.experiments) for one in found.versions] == [
            ("REFUSED", 18),
            ("REFUSED", 18),
            ("CHAMPION", 6),
        ]
        assert recommended(world) == self.good


class TestRollBack:
    def test_an_earlier_version_is_used_again(self, world: World, process: WorkerProcess) -> None:
        remember(world, 0, 5)
        refit(world, process)
        before = recommended(world)
        remember(world, 5, 3)
        assert refit(world, process).version == 2
        with world.database.transaction() as tx:
            found = metalearner.roll_back(tx, world.project, 1)
        assert (found.version, [one.state for one in found.versions]) == (1, ["REFUSED", "CHAMPION"])
        assert found.versions[0].reason == "rolled back to version 1"
        assert recommended(world) == before
        remember(world, 8, 1)
        assert refit(world, process).version == 3

    def test_only_what_was_in_use_can_be(self, world: World, process: WorkerProcess) -> None:
        remember(world, 0, 5)
        begin(world)
        with world.database.transaction() as tx:
            with pytest.raises(NotPromotable, match="model 1 is FITTING"):
                fitting.roll_back(tx, world.project, 1)
            with pytest.raises(NotFound, match="there is no model 7; there are: 1"):
                fitting.roll_back(tx, world.project, 7)
        fit_project(process, world.project)
        with world.database.transaction() as tx:
            fitting.roll_back(tx, world.project, 1)
        assert described(world).versions[0].state == ModelState.CHAMPION


def test_strangers_have_models_of_their_own(world: World, process: WorkerProcess, other_project: Project) -> None:
    remember(world, 0, 5)
    refit(world, process)
    theirs = World(world.database, world.bus, other_project.id)
    assert described(theirs).version == 0
    with world.database.transaction() as tx, pytest.raises(NotFound):
        fitting.roll_back(tx, other_project.id, 1)


def test_a_message_is_worked_on_in_a_process_of_its_own(world: World, process: WorkerProcess) -> None:
    remember(world, 0, 5)
    begin(world)
    fit_apart(process, world.project)
    assert described(world).version == 1
    with world.database.reading() as tx:
        before = models.listed(tx, world.project)
    fit_apart(process, world.project)
    with world.database.reading() as tx:
        assert models.listed(tx, world.project) == before


def test_a_worker_that_is_asked_to_stop_keeps_what_is_done(world: World, process: WorkerProcess) -> None:
    remember(world, 0, 5)
    begin(world)
    process.stopping.set()
    fit_project(process, world.project)
    assert [(one.state, one.fitted) for one in described(world).versions] == [("FITTING", 1)]
    with world.database.reading() as tx:
        assert models.due(tx) == [world.project]
