"""Requests that are wrong before any use case hears of them: each gets a precise problem document."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from tests.service.api.conftest import EXTERNAL, Api, Serve, broken, problem_of


def post(api: Api, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return api.http.post("/v1/experiments", content=body, headers=headers)


def with_fixed(text: str) -> bytes:
    """A submission whose `fixed` holds this JSON text."""
    return json.dumps(EXTERNAL)[:-1].encode() + b', "fixed": {"value": ' + text.encode() + b"}}"


def test_json_that_is_none_is_refused(api: Api) -> None:
    for body in (
        b"{",
        b"nonsense",
        b'{"mode": "external",}',
        b'{"mode": NaN}',
        b'{"mode": Infinity}',
        b'{"mode": "\xff"}',
        b'{"mode": "\\ud800"}',
        b"[" * 100_000,
        b'{"mode": ' + b"9" * 5000 + b"}",
    ):
        problem = problem_of(post(api, body))
        assert problem["status"] == 422, body[:40]
        assert "no JSON" in str(problem["detail"])


def test_json_of_the_wrong_shape_is_refused_with_the_place(api: Api) -> None:
    for body, loc in (
        (b"null", ["body"]),
        (b"[]", ["body"]),
        (b"", ["body"]),
        (json.dumps({**EXTERNAL, "colour": "red"}).encode(), ["body", "colour"]),
        (json.dumps({**EXTERNAL, "seed": 2**70}).encode(), ["body", "seed"]),
        (json.dumps({**EXTERNAL, "seed": 1.5}).encode(), ["body", "seed"]),
        (json.dumps({**EXTERNAL, "name": "a\x00b"}).encode(), ["body", "name"]),
        (json.dumps({**EXTERNAL, "labels": {"a\x00": "b"}}).encode(), ["body", "labels", "a\x00", "[key]"]),
        (json.dumps({**EXTERNAL, "budget": {"max_trials": 0}}).encode(), ["body", "budget", "max_trials"]),
        (with_fixed("1e999"), ["body"]),
        (with_fixed('"\\u0000"'), ["body", "fixed", "value"]),
        (with_fixed("[" * 30 + "]" * 30), ["body", "fixed", "value"]),
        (with_fixed("1e300"), None),
    ):
        answer = post(api, body)
        if loc is None:
            assert answer.status_code == 201, answer.text
            continue
        errors = problem_of(answer)["errors"]
        assert isinstance(errors, list)
        assert loc in [error["loc"] for error in errors], (body[:80], errors)


def test_faults_of_a_space_are_located_in_it(api: Api) -> None:
    space = [
        {"name": "a", "type": "float", "low": 1.0, "high": 0.0},
        {"name": "b", "type": "float", "low": 0.0, "high": 1.0, "log": True},
        {"name": "c", "type": "categorical", "choices": []},
        {"name": "d", "type": "gamma"},
    ]
    answer = api.http.post("/v1/experiments", json={**EXTERNAL, "space": space})
    errors = problem_of(answer)["errors"]
    assert isinstance(errors, list)
    assert [error["loc"][:3] for error in errors] == [["body", "space", position] for position in range(4)]


def test_a_huge_nested_body_is_too_large_and_harms_nobody(api: Api) -> None:
    nested = b"[" * 2_500_000 + b"]" * 2_500_000
    assert problem_of(post(api, nested))["status"] == 413
    assert api.http.get("/healthz").status_code == 200


def test_a_body_may_be_exactly_as_long_as_allowed(serve: Serve) -> None:
    api = serve(foretune_max_body_bytes=2048)
    body = json.dumps(EXTERNAL).encode()
    padded = body + b" " * (2048 - len(body))
    assert post(api, padded).status_code == 201
    assert problem_of(post(api, padded + b" "))["code"] == "too_large"


def test_a_body_in_chunks_is_counted_while_it_arrives(serve: Serve) -> None:
    api = serve(foretune_max_body_bytes=2048)
    chunks = iter([b" " * 1000] * 5)
    answer = api.http.post("/v1/experiments", content=chunks, headers={"Content-Type": "application/json"})
    assert problem_of(answer)["code"] == "too_large"


def test_other_media_types_are_refused(api: Api) -> None:
    body = json.dumps(EXTERNAL).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application", None):
        assert problem_of(post(api, body, content_type))["status"] == 415
    for content_type in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"):
        assert post(api, body, content_type).status_code == 201


def test_a_call_without_fields_takes_no_body(api: Api) -> None:
    experiment = api.submit()
    problem = problem_of(api.http.post(f"/v1/experiments/{experiment}/pause", json={"why": "lunch"}))
    assert problem["status"] == 422
    assert api.http.post(f"/v1/experiments/{experiment}/pause", json={}).status_code == 200


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("/v1/experiments?colour=red", ["query", "colour"]),
        ("/v1/experiments?limit=0", ["query", "limit"]),
        ("/v1/experiments?limit=501", ["query", "limit"]),
        ("/v1/experiments?limit=" + "9" * 5000, ["query", "limit"]),
        ("/v1/experiments?state=SLEEPING", ["query", "state"]),
        ("/v1/experiments?label=team", ["query", "label"]),
        ("/v1/experiments?label=a:%00", ["query", "label"]),
        ("/v1/experiments?cursor=nonsense", ["query", "cursor"]),
        ("/v1/datasets?cursor=WzEsMl0", ["query", "cursor"]),
        ("/v1/networks?cursor=LTE", ["query", "cursor"]),
        ("/v1/datasets/a%00b", ["path", "dataset"]),
        ("/v1/trials/%00", ["path", "trial_id"]),
        ("/v1/experiments/exp_1/events?after=-1", ["query", "after"]),
        ("/v1/experiments/exp_1/events?after=9223372036854775808", ["query", "after"]),
        ("/v1/experiments/exp_1/export?format=xls", ["query", "format"]),
        ("/v1/experiments/exp_1/recommendation?count=0", ["query", "count"]),
        ("/healthz?verbose=1", ["query", "verbose"]),
    ],
)
def test_strange_parameters_are_refused_with_the_place(api: Api, path: str, loc: list[str]) -> None:
    errors = problem_of(api.http.get(path))["errors"]
    assert isinstance(errors, list)
    assert [error["loc"] for error in errors] == [loc]


def test_bytes_in_a_path_that_are_no_text_name_nothing(api: Api) -> None:
    assert problem_of(api.http.get("/v1/datasets/%ff%fe"))["status"] == 404


def test_what_is_not_there_and_what_cannot_be_done(api: Api) -> None:
    for path in ("/v1/nothing", "/v1/experiments/", "/v2/experiments", "/nothing"):
        assert problem_of(api.http.get(path))["code"] == "not_found"
    answer = api.http.put("/v1/experiments")
    assert problem_of(answer)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET, POST"
    assert api.http.put("/v1/experiments/exp_1").headers["allow"] == "DELETE, GET, PATCH"


@pytest.mark.usefixtures("log")
def test_a_fault_of_ours_says_nothing_of_its_inside(api: Api) -> None:
    with broken(api):
        answer = api.http.get("/v1/experiments", headers={"X-Request-ID": "mine-1"})
    problem = problem_of(answer)
    assert (problem["status"], problem["code"]) == (500, "internal_error")
    assert "mine-1" in str(problem["detail"])
    assert "NoneType" not in answer.text
    assert answer.headers["x-request-id"] == "mine-1"


def test_a_database_that_is_away_is_said_so(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    api = serve(database_url=f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
    answer = api.http.get("/v1/experiments")
    assert problem_of(answer)["code"] == "database_away"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(api: Api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    key = api.http.headers["authorization"]
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/experiments HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.05)
    assert api.http.get("/v1/experiments").json()["items"] == []


def test_a_coded_body_is_refused_on_every_way(api: Api) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    for path in ("/v1/experiments", f"/v1/experiments/{api.submit()}/suggestions", "/v1/datasets", "/v1/histories"):
        problem = problem_of(api.http.post(path, content=b"{}", headers=headers))
        assert problem["status"] == 415, path
        assert "'gzip'" in str(problem["detail"])
    answer = api.http.post("/v1/experiments", json=EXTERNAL, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 201


def test_a_parameter_that_is_given_twice_is_refused(api: Api) -> None:
    problem = problem_of(api.http.get("/v1/experiments?state=RUNNING&state=QUEUED"))
    assert problem["errors"] == [{"loc": ["query", "state"], "msg": "is given twice: give it once"}]


def test_the_cursor_of_another_list_is_refused(api: Api) -> None:
    for _ in range(2):
        api.submit()
    cursor = api.http.get("/v1/experiments?limit=1").json()["next"]
    assert problem_of(api.http.get(f"/v1/datasets?cursor={cursor}"))["errors"][0]["loc"] == ["query", "cursor"]  # type: ignore[index]


def test_asking_without_a_body_asks_for_one_trial(api: Api) -> None:
    path = f"/v1/experiments/{api.submit()}/suggestions"
    for body in ({}, {"content": b""}, {"content": b"{}", "headers": {"Content-Type": "application/json"}}):
        answer = api.http.post(path, **body)  # type: ignore[arg-type]
        assert (answer.status_code, len(answer.json()["trials"])) == (200, 1), answer.text


def test_true_is_no_number(api: Api) -> None:
    for kind in ("float", "int"):
        space = [{"name": "x", "type": kind, "low": True, "high": 9}]
        errors = problem_of(api.http.post("/v1/experiments", json={**EXTERNAL, "space": space}))["errors"]
        assert "must be a number, not true" in str(errors)
