"""Who may call, and what of another project can be seen: nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, update

from foretune.client import Client
from service.db.session import Database
from service.db.tables import api_keys
from tests.service.api.conftest import EXTERNAL, Api, problem_of

if TYPE_CHECKING:
    from tests.conftest import Project


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Basic abc", "Bearer ft_wrong", "Bearer " + "x" * 5000, "bearer\tft_x", "Bearer ü"],
)
def test_without_a_valid_key_nothing_is_answered(api: Api, header: str | None) -> None:
    stranger = api.as_key(None)
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    for path in ("/v1/experiments", "/v1/nothing", "/v1"):
        answer = stranger.get(path, headers=headers)
        assert problem_of(answer)["status"] == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_health_needs_no_key(api: Api) -> None:
    for path in ("/healthz", "/metrics", "/docs", "/openapi.json"):
        assert api.as_key(None).get(path).status_code == 200


def test_a_key_is_made_shown_once_used_and_revoked(api: Api) -> None:
    made = api.http.post("/v1/keys", json={"name": "laptop", "expires_in_days": 1})
    assert made.status_code == 201
    key = made.json()
    other = api.as_key(key["key"])
    assert other.get("/v1/experiments").status_code == 200

    listed = {one["id"]: one for one in api.http.get("/v1/keys").json()["items"]}
    assert listed[key["id"]]["name"] == "laptop"
    assert key["key"] not in api.http.get("/v1/keys").text

    assert api.http.delete(f"/v1/keys/{key['id']}").status_code == 204
    answer = other.get("/v1/experiments")
    assert problem_of(answer)["code"] == "key_revoked"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_key_does_not_revoke_itself(api: Api) -> None:
    own = api.http.get("/v1/keys").json()["items"][0]["id"]
    assert problem_of(api.http.delete(f"/v1/keys/{own}"))["code"] == "key_in_use"
    assert problem_of(api.http.delete("/v1/keys/key_none"))["code"] == "not_found"


def test_an_expired_key_is_refused(api: Api, database: Database) -> None:
    made = api.http.post("/v1/keys", json={"name": "short", "expires_in_days": 1}).json()
    with database.transaction() as tx:
        past = func.now() - timedelta(seconds=1)
        tx.connection.execute(update(api_keys).where(api_keys.c.id == made["id"]).values(expires_at=past))
    assert problem_of(api.as_key(made["key"]).get("/v1/keys"))["code"] == "key_expired"


def test_keys_are_paged(api: Api) -> None:
    for number in range(4):
        api.http.post("/v1/keys", json={"name": f"k{number}"})
    names, cursor = [], None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/v1/keys", params=params).json()
        assert len(page["items"]) <= 2
        names += [one["name"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == ["k3", "k2", "k1", "k0", "test"]


def test_another_projects_things_are_not_there(api: Api, other_project: Project) -> None:
    experiment = api.submit()
    trial, lease = api.lease(experiment)
    path = f"/v1/experiments/{experiment}"
    stranger = api.as_key(other_project.key)
    bodies = {
        f"{path}/suggestions": {},
        f"{trial}/measurements": {"lease": lease, "measurements": [{"epoch": 1, "value": 1.0}]},
        f"{trial}/complete": {"lease": lease, "value": 1.0},
        f"{trial}/heartbeat": {"lease": lease},
    }
    answers = [stranger.post(where, json=body) for where, body in bodies.items()]
    answers += [stranger.post(f"{path}/{verb}") for verb in ("pause", "resume", "cancel")]
    answers += [
        stranger.get(where)
        for where in (
            path,
            f"{path}/trials",
            f"{path}/events",
            f"{path}/export",
            f"{path}/recommendation",
            trial,
            f"{trial}/measurements",
            f"{trial}/checkpoint",
        )
    ]
    answers += [stranger.patch(path, json={"name": "mine"}), stranger.delete(path)]
    for answer in answers:
        assert problem_of(answer)["status"] == 404, answer.url
    assert stranger.get("/v1/experiments").json()["items"] == []
    prior = stranger.post("/v1/experiments", json={**EXTERNAL, "priors": [experiment]})
    assert problem_of(prior)["status"] == 422
    assert api.http.get(path).json()["progress"]["trials"] == {"RUNNING": 1}


def test_the_client_speaks_with_it(api: Api, project: Project) -> None:
    with Client(api.url, project.key) as client:
        assert client.experiments.get(api.submit()).id
