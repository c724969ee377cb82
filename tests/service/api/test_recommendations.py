"""Recommendations before any trial has run, and which histories count, over HTTP with a desk worker."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest

from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space
from service.usecases import metalearner
from tests.service.api.conftest import Api, problem_of
from workers.desk import Desk
from workers.process import WorkerProcess

if TYPE_CHECKING:
    from service.artifacts import ArtifactStore
    from service.bus import Bus
    from service.db.session import Database

SPACE: list[JsonValue] = [
    {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "lr_schedule", "type": "schedule"},
]
METRIC: JsonObject = {"name": "val_loss", "goal": "minimize"}


@pytest.fixture
def desk(database: Database, bus: Bus, artifacts: ArtifactStore) -> Iterator[None]:
    process = WorkerProcess("wrk_test", database, bus, artifacts)
    Desk(process).start()
    yield
    process.stopping.set()


def remember(api: Api, number: int = 0, **changes: JsonValue) -> str:
    """Imports a finished experiment that is best at a learning rate of 0.01."""
    space = Space.from_json(SPACE)
    points = np.random.default_rng(number).random((30, space.dimensions)).tolist()
    trials: list[JsonValue] = []
    for configuration in map(space.from_unit, points):
        rate = configuration["learning_rate"]
        assert isinstance(rate, float)
        trials.append({"hyperparameters": configuration, "value": (math.log10(rate) + 2.0) ** 2 + 0.001 * number})
    line: JsonObject = {
        "name": f"history {number}",
        "space": SPACE,
        "metric": "val_loss",
        "max_epochs": 5,
        "features": {"rows": 1000 + number, "classes": 3},
        "trials": trials,
        **changes,
    }
    answer = api.http.post(
        "/v1/histories", content=orjson.dumps(line), headers={"content-type": "application/x-ndjson"}
    ).json()
    assert answer["imported"] == 1, answer
    return str(line["name"])


def recommend(api: Api, **changes: JsonValue) -> dict[str, JsonValue]:
    request: JsonObject = {
        "features": {"rows": 1000, "classes": 3},
        "space": SPACE,
        "metric": METRIC,
        "max_epochs": 5,
        "count": 3,
        **changes,
    }
    answer = api.http.post("/v1/recommendations", json=request)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def items(found: dict[str, JsonValue]) -> list[dict[str, JsonValue]]:
    listed = found["recommendations"]
    assert isinstance(listed, list)
    return [one for one in listed if isinstance(one, dict)]


@pytest.mark.usefixtures("desk")
class TestTask:
    def test_without_histories_there_is_no_confidence(self, api: Api) -> None:
        found = recommend(api)
        assert found["confidence"] == "none"
        assert [one["origin"] for one in items(found)] == ["quasirandom"] * 3

    def test_histories_of_like_tasks_tell_settings_schedules_and_values(self, api: Api) -> None:
        for number in range(4):
            remember(api, number)
        found = recommend(api)
        assert found["confidence"] in ("low", "high")
        assert found["model"] == {"version": 0, "experiments": 4, "trials": 120, "promoted_at": None}
        first = items(found)[0]
        assert (first["origin"], first["rank"]) == ("portfolio", 1)
        hyperparameters, schedule, predicted = first["hyperparameters"], first["lr_schedule"], first["predicted"]
        assert isinstance(hyperparameters, dict)
        assert isinstance(schedule, dict)
        assert isinstance(predicted, dict)
        rate = hyperparameters["learning_rate"]
        assert isinstance(rate, float)
        assert 0.002 < rate < 0.05
        assert schedule["peak"] == rate
        assert isinstance(schedule["values"], list)
        assert len(schedule["values"]) == 5
        assert predicted["metric"] == "val_loss"
        evidence = first["evidence"]
        assert isinstance(evidence, list)
        assert evidence
        assert items(recommend(api)) == items(found)

    def test_what_has_just_ended_counts_at_once(self, api: Api) -> None:
        """Given nobody made a history of it yet, the answer that hears it counts it too."""
        experiment = api.submit(space=SPACE, metric=METRIC, budget={"max_trials": 3, "max_epochs": 5})
        for number, trial in enumerate(api.ask(experiment, 3)):
            lease = trial["lease"]
            assert isinstance(lease, dict)
            ending = {"lease": lease["token"], "outcome": "completed", "value": 0.1 * number}
            answer = api.http.post(f"/v1/trials/{trial['id']}/complete", json=ending)
            assert answer.status_code == 200, answer.text
        found = recommend(api)
        assert items(found)[0]["origin"] == "portfolio"
        assert found["model"] == {"version": 0, "experiments": 1, "trials": 3, "promoted_at": None}

    def test_a_data_set_that_was_tuned_before_is_known(self, api: Api, network: str, parser: None) -> None:
        content = b"x,y,kind\n" + b"".join(b"%d,%d,%s\n" % (n, n % 7, b"ab"[n % 2 : n % 2 + 1]) for n in range(60))
        upload = api.http.post("/v1/datasets", files={"file": ("toy.csv", content)}, data={"target": "kind"})
        assert upload.status_code == 201, upload.text
        asked: JsonObject = {"features": None, "dataset": "toy", "network": network, "space": None, "metric": None}
        cold = recommend(api, **asked)
        assert (cold["confidence"], items(cold)[0]["origin"]) == ("none", "default")
        remember(api, dataset="toy", network=network, metric="val_accuracy", features={})
        known = recommend(api, **asked)
        assert known["confidence"] == "high"
        assert [one["origin"] for one in items(known)] == ["portfolio"] * 3
        evidence = items(known)[0]["evidence"]
        assert isinstance(evidence, list)
        assert isinstance(evidence[0], dict)
        assert evidence[0]["similarity"] == 1.0

    def test_without_a_metric_settings_are_named_and_no_values(self, api: Api) -> None:
        remember(api)
        (first, *_) = items(recommend(api, metric=None))
        assert (first["origin"], first["predicted"]) == ("portfolio", None)

    def test_another_projects_histories_stay_its_own(self, api: Api, other_project: object) -> None:
        remember(api)
        stranger = api.as_key(other_project.key)  # type: ignore[attr-defined]
        body: JsonObject = {"features": {"rows": 1000, "classes": 3}, "space": SPACE, "metric": METRIC}
        found = stranger.post("/v1/recommendations", json=body).json()
        assert (found["confidence"], found["model"]["experiments"]) == ("none", 0)


class TestPriors:
    @pytest.mark.usefixtures("desk")
    def test_they_say_which_histories_count_and_how_much(self, api: Api) -> None:
        near = remember(api)
        far = remember(api, 1, features={"rows": 10**6, "classes": 3})
        remember(api, 2, features={"classes": 0})
        experiment = api.submit(space=SPACE, metric=METRIC, features={"rows": 1000, "classes": 3})
        later = remember(api, 3)
        found = api.http.get(f"/v1/experiments/{experiment}/priors").json()
        assert found["considered"] == 3
        assert [one["name"] for one in found["histories"]] == [near, far]
        assert later not in str(found)
        assert 1.0 > found["histories"][0]["similarity"] > found["histories"][1]["similarity"] > 0.0
        assert found["histories"][0]["trials"] == 30
        gate = found["gate"]
        assert (gate["trust"], gate["results"], gate["says"]) == (1.0, 0, "open until results say otherwise")
        assert 0.0 <= gate["agreement"] <= 1.0

    def test_an_experiment_that_wants_none_has_none(self, api: Api) -> None:
        experiment = api.submit(priors="none")
        found = api.http.get(f"/v1/experiments/{experiment}/priors").json()
        assert (found["histories"], found["gate"]) == ([], None)
        assert problem_of(api.http.get("/v1/experiments/exp_0/priors"))["code"] == "not_found"

    def test_without_a_desk_the_answer_says_who_is_missing(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metalearner, "_DESK_S", 0.05)
        answer = api.http.get(f"/v1/experiments/{api.submit()}/priors")
        assert (answer.status_code, problem_of(answer)["code"]) == (503, "no_desk")


class TestNeighbours:
    @pytest.mark.usefixtures("desk", "parser")
    def test_the_nearest_tasks_come_first_with_what_makes_them_so(self, api: Api) -> None:
        content = b"x,y,kind\n" + b"".join(b"%d,%d,%s\n" % (n, n % 7, b"ab"[n % 2 : n % 2 + 1]) for n in range(60))
        upload = api.http.post("/v1/datasets", files={"file": ("toy.csv", content)}, data={"target": "kind"})
        assert upload.status_code == 201, upload.text
        near = remember(api, features={"rows": 60, "classes": 2, "task": "classification"})
        far = remember(api, 1, features={"rows": 10**6, "classes": 2, "task": "classification"})
        remember(api, 2, features={"rows": 60, "task": "regression"})
        found = api.http.get("/v1/datasets/toy/neighbours").json()
        assert (found["dataset"], found["space"], found["considered"]) == (upload.json()["id"], "features", 3)
        assert [one["name"] for one in found["neighbours"]] == [near, far]
        first = found["neighbours"][0]
        assert 1.0 > first["similarity"] > found["neighbours"][1]["similarity"]
        assert found["neighbours"][1]["unlike"][0]["feature"] == "rows"
        assert first["unlike"] == []  # all that is known of it is the same
        assert first["hyperparameters"]["learning_rate"] > 0.0
        assert api.http.get("/v1/datasets/toy/neighbours?limit=1").json()["neighbours"] == [first]
        assert api.http.get("/v1/datasets/toy/neighbours?network=cnn").json()["considered"] == 0

    def test_of_an_unknown_data_set_there_are_none(self, api: Api) -> None:
        assert problem_of(api.http.get("/v1/datasets/none/neighbours"))["status"] == 404
