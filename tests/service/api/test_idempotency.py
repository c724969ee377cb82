"""The same call twice has one effect and one answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import select

from service.db.session import Database
from service.db.tables import idempotency_keys
from tests.service.api.conftest import EXTERNAL, Api, problem_of

if TYPE_CHECKING:
    from tests.conftest import Project

KEY = {"Idempotency-Key": "once"}


def count(api: Api) -> int:
    return len(api.http.get("/v1/experiments").json()["items"])


def test_the_same_key_and_body_get_the_first_answer(api: Api) -> None:
    first = api.http.post("/v1/experiments", json=EXTERNAL, headers=KEY)
    again = api.http.post("/v1/experiments", json=EXTERNAL, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count(api) == 1


def test_the_same_key_with_another_request_is_refused(api: Api) -> None:
    experiment = api.http.post("/v1/experiments", json=EXTERNAL, headers=KEY).json()["id"]
    for answer in (
        api.http.post("/v1/experiments", json={**EXTERNAL, "seed": 1}, headers=KEY),
        api.http.post(f"/v1/experiments/{experiment}/pause", headers=KEY),
        api.http.post(f"/v1/experiments/{experiment}/suggestions", json={"wait_seconds": 0}, headers=KEY),
        api.http.post("/v1/datasets", files={"file": ("a.csv", b"a,b\n1,2\n")}, headers=KEY),
    ):
        assert problem_of(answer)["code"] == "idempotency_conflict", answer.url
    assert count(api) == 1
    assert api.http.get(f"/v1/experiments/{experiment}").json()["state"] == "QUEUED"


def test_an_ending_that_is_told_again_gets_the_same_next_trial(api: Api) -> None:
    experiment = api.submit()
    path, lease = api.lease(experiment)
    ending = {"lease": lease, "value": 0.4, "next": {"count": 1, "wait_seconds": 0}}
    first = api.http.post(f"{path}/complete", json=ending, headers=KEY)
    again = api.http.post(f"{path}/complete", json=ending, headers=KEY)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(api.http.get(f"/v1/experiments/{experiment}/trials").json()["items"]) == 2
    more = {**ending, "next": {"count": 2, "wait_seconds": 0}}
    refused = api.http.post(f"{path}/complete", json=more, headers=KEY)
    assert problem_of(refused)["code"] == "idempotency_conflict"


def test_calls_at_the_same_time_have_one_effect(api: Api) -> None:
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(api.http.post, "/v1/experiments", json=EXTERNAL, headers=KEY) for _ in range(6)]
    answers = {(one.result().status_code, one.result().content) for one in sent}
    assert len(answers) == 1
    assert count(api) == 1


def test_what_failed_is_not_remembered(api: Api) -> None:
    experiment = api.submit()
    path = f"/v1/experiments/{experiment}"
    api.http.post(f"{path}/pause")
    ask = {"wait_seconds": 0}
    paused = api.http.post(f"{path}/suggestions", json=ask, headers=KEY)
    assert problem_of(paused)["code"] == "experiment_paused"
    api.http.post(f"{path}/resume")
    assert api.http.post(f"{path}/suggestions", json=ask, headers=KEY).status_code == 200


def test_asking_again_leases_the_same_trials(api: Api) -> None:
    path = f"/v1/experiments/{api.submit()}"
    first = api.http.post(f"{path}/suggestions", json={"count": 2, "wait_seconds": 0}, headers=KEY)
    again = api.http.post(f"{path}/suggestions", json={"count": 2, "wait_seconds": 0}, headers=KEY)
    assert again.json() == first.json()
    assert api.http.get(path).json()["progress"]["trials"] == {"RUNNING": 2}


def test_keys_belong_to_their_project(api: Api, other_project: Project) -> None:
    mine = api.http.post("/v1/experiments", json=EXTERNAL, headers=KEY).json()["id"]
    theirs = api.as_key(other_project.key).post("/v1/experiments", json=EXTERNAL, headers=KEY).json()["id"]
    assert mine != theirs


def test_a_new_key_is_remembered_for_its_maker_alone(api: Api, database: Database) -> None:
    made = api.http.post("/v1/keys", json={"name": "a"}, headers=KEY).json()
    assert api.http.post("/v1/keys", json={"name": "a"}, headers=KEY).json() == made
    with database.reading() as tx:
        kept = tx.connection.execute(select(idempotency_keys.c.body)).scalars().all()
    assert not any(made["key"] in body for body in kept)
    colleague = api.as_key(made["key"]).post("/v1/keys", json={"name": "a"}, headers=KEY)
    assert problem_of(colleague)["code"] == "idempotency_conflict"
    assert made["key"] not in colleague.text


def test_a_key_that_is_none_is_refused(api: Api) -> None:
    for key in ("", "x" * 256):
        answer = api.http.post("/v1/experiments", json=EXTERNAL, headers={"Idempotency-Key": key})
        assert problem_of(answer)["errors"][0]["loc"] == ["header", "idempotency-key"]  # type: ignore[index]
