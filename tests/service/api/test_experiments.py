"""Experiments over HTTP: what is submitted, answered, listed, steered and deleted."""

from __future__ import annotations

import io
import json

import pyarrow.parquet
import pytest

from foretune.json_types import JsonObject
from tests.service.api.conftest import EXTERNAL, Api, problem_of


def test_what_is_submitted_is_answered(api: Api) -> None:
    request: JsonObject = {
        **EXTERNAL,
        "name": "mine",
        "labels": {"team": "vision"},
        "features": {"rows": 10.0, "kind": "toy"},
    }
    made = api.http.post("/v1/experiments", json=request)
    assert made.status_code == 201
    experiment = made.json()
    assert experiment == api.http.get(f"/v1/experiments/{experiment['id']}").json()
    assert experiment["state"] == "QUEUED"
    assert experiment["last_event"] == 1
    for name in ("name", "mode", "metric", "labels", "features", "stopping"):
        assert experiment[name] == request[name]
    assert experiment["budget"]["max_trials"] == 4


def test_parts_that_do_not_fit_are_refused(api: Api, network: str) -> None:
    for change, code in (
        ({"space": None}, "invalid_experiment"),
        ({"dataset": "digits"}, "invalid_experiment"),
        ({"mode": "managed"}, "invalid_experiment"),
        ({"mode": "managed", "dataset": "nowhere", "network": network}, "invalid_experiment"),
        ({"space": [EXTERNAL["space"][0]] * 2}, "invalid_space"),  # type: ignore[index]
    ):
        assert problem_of(api.http.post("/v1/experiments", json={**EXTERNAL, **change}))["code"] == code


def test_experiments_are_listed_paged_and_filtered(api: Api) -> None:
    ids = [api.submit(labels={"n": str(number % 2)}) for number in range(5)]
    api.http.post(f"/v1/experiments/{ids[0]}/cancel")

    found, cursor = [], ""
    while True:
        page = api.http.get(f"/v1/experiments?limit=2{cursor}").json()
        found += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == ids[::-1]
    assert [one["id"] for one in api.http.get("/v1/experiments?state=CANCELED").json()["items"]] == [ids[0]]
    assert [one["id"] for one in api.http.get("/v1/experiments?label=n:1").json()["items"]] == [ids[3], ids[1]]
    assert api.http.get("/v1/experiments?label=n:1:2").json()["items"] == []


def test_steering(api: Api) -> None:
    path = f"/v1/experiments/{api.submit()}"
    for verb, state in (("pause", "PAUSED"), ("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELED")):
        answer = api.http.post(f"{path}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert problem_of(api.http.post(f"{path}/resume"))["code"] == "illegal_transition"


def test_a_budget_is_raised_and_never_lowered(api: Api) -> None:
    path = f"/v1/experiments/{api.submit()}"
    raised = api.http.patch(path, json={"budget": {"max_trials": 9}, "name": "longer"})
    assert (raised.json()["budget"]["max_trials"], raised.json()["name"]) == (9, "longer")
    problem = problem_of(api.http.patch(path, json={"budget": {"max_trials": 2}}))
    assert problem["errors"][0]["loc"] == ["body", "budget", "max_trials"]  # type: ignore[index]


def test_null_lifts_the_limits_of_a_budget_that_may_be_lifted(api: Api) -> None:
    limits: JsonObject = {"max_total_epochs": 9, "max_seconds": 60.0, "target": 0.5}
    path = f"/v1/experiments/{api.submit(budget={'max_trials': 4, 'max_epochs': 3, **limits})}"
    for field in limits:
        answer = api.http.patch(path, json={"budget": {field: None}})
        assert (answer.status_code, answer.json()["budget"][field]) == (200, None), answer.text
    assert api.http.get(path).json()["budget"] == {"max_trials": 4, "max_epochs": 3, **dict.fromkeys(limits)}
    for field in ("max_trials", "max_epochs"):
        problem = problem_of(api.http.patch(path, json={"budget": {field: None}}))
        assert problem["errors"] == [
            {
                "loc": ["body", "budget", field],
                "msg": "must be a number: this limit can be raised, not lifted; leave it out to keep it",
            }
        ]
    # then what was lifted cannot come back
    assert problem_of(api.http.patch(path, json={"budget": {"max_seconds": 99}}))["status"] == 422


def test_only_a_finished_experiment_is_deleted(api: Api) -> None:
    path = f"/v1/experiments/{api.submit()}"
    assert problem_of(api.http.delete(path))["code"] == "experiment_not_finished"
    api.http.post(f"{path}/cancel")
    answer = api.http.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert problem_of(api.http.get(path))["status"] == 404
    assert problem_of(api.http.delete(path))["status"] == 404


def test_networks_are_what_workers_published(api: Api, network: str) -> None:
    assert [one["name"] for one in api.http.get("/v1/networks").json()["items"]] == [network]
    assert api.http.get(f"/v1/networks/{network}").json()["defaults"] == {"learning_rate": 0.01}
    assert network in str(problem_of(api.http.get("/v1/networks/other"))["detail"])


@pytest.fixture
def trained(api: Api) -> str:
    """An experiment with two trials of two epochs."""
    experiment = api.submit()
    for value in (0.5, 0.25):
        path, lease = api.lease(experiment)
        measured = [{"epoch": 1, "value": 1.0}, {"epoch": 2, "value": value}]
        api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": measured})
        api.http.post(f"{path}/complete", json={"lease": lease})
    return experiment


def test_exports_hold_every_trial(api: Api, trained: str) -> None:
    path = f"/v1/experiments/{trained}/export"
    csv = api.http.get(f"{path}?format=csv")
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert csv.headers["content-disposition"] == f'attachment; filename="{trained}.csv"'
    assert len(csv.text.splitlines()) == 3
    lines = api.http.get(f"{path}?format=jsonl").text.splitlines()
    assert [len(json.loads(line)["measurements"]) for line in lines] == [2, 2]
    table = pyarrow.parquet.read_table(io.BytesIO(api.http.get(f"{path}?format=parquet").content))
    assert table.num_rows == 2
    assert problem_of(api.http.get("/v1/experiments/exp_none/export"))["status"] == 404


def test_a_recommendation_follows_the_best_trial(api: Api, trained: str) -> None:
    answer = api.http.get(f"/v1/experiments/{trained}/recommendation?count=1").json()
    best = api.http.get(f"/v1/experiments/{trained}").json()["best"]
    assert best["value"] == 0.25
    assert [one["hyperparameters"] for one in answer["recommendations"]] == [best["hyperparameters"]]


def test_a_task_gets_recommendations_before_any_trial(api: Api) -> None:
    request = {"features": {"rows": 100}, "space": EXTERNAL["space"], "count": 2}
    answer = api.http.post("/v1/recommendations", json=request)
    assert answer.status_code == 200
    assert [one["rank"] for one in answer.json()["recommendations"]] == [1, 2]
    assert problem_of(api.http.post("/v1/recommendations", json={"count": 1}))["status"] == 422
