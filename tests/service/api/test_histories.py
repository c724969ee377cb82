"""Histories and the meta-learner over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from foretune.cli.main import app
from foretune.client import Client
from foretune.json_types import JsonObject
from service.api import histories
from tests.service.api.conftest import Api, Serve, problem_of

LINE: JsonObject = {
    "name": "elsewhere",
    "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 1.0, "log": True}],
    "metric": "val_loss",
    "max_epochs": 2,
    "trials": [{"hyperparameters": {"lr": 0.1}, "curve": [0.5, 0.25]}],
}
NDJSON = {"content-type": "application/x-ndjson"}


def line(number: int) -> bytes:
    return orjson.dumps({**LINE, "features": {"n": number}})


def post(api: Api, body: bytes | Iterator[bytes]) -> JsonObject:
    answer = api.http.post("/v1/histories", content=body, headers=NDJSON)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def test_a_bad_line_never_spoils_a_good_one(api: Api) -> None:
    body = b"\n".join([line(1), b"{", b"", line(2), b'{"name": "x"}', line(1), b""])
    found = post(api, body)
    assert (found["imported"], found["duplicates"]) == (2, 1)
    faults = found["errors"]
    assert isinstance(faults, list)
    assert [(one["line"], one["code"]) for one in faults if isinstance(one, dict)] == [
        (2, "invalid_json"),
        (5, "invalid_history"),
    ]
    assert post(api, body)["imported"] == 0


def test_lines_are_found_wherever_the_pieces_end(api: Api) -> None:
    body = b"\r\n".join(line(number) for number in range(5))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 37):
            yield body[start : start + 37]

    assert post(api, pieces())["imported"] == 5


def test_a_line_that_is_too_long_is_passed_over(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "LONGEST_LINE_BYTES", 1000)

    def pieces() -> Iterator[bytes]:
        yield line(1) + b"\n" + b"x" * 700
        yield b"x" * 700
        yield b"x\n" + line(2) + b"\n" + b"y" * 2000

    found = post(api, pieces())
    assert found["imported"] == 2
    assert [(one["line"], one["code"]) for one in found["errors"]] == [(2, "too_large"), (4, "too_large")]  # type: ignore[union-attr, index, call-overload]


def test_faults_are_listed_up_to_a_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_FAULTS", 3)
    faults = post(api, b"{\n" * 5 + line(1))["errors"]
    assert isinstance(faults, list)
    assert [one["line"] for one in faults if isinstance(one, dict)] == [1, 2, 5]
    assert "3 more bad lines" in str(faults[-1])


def test_a_body_beyond_the_limit_and_another_media_type_are_refused(serve: Serve) -> None:
    api = serve(foretune_max_upload_bytes=100)
    answer = api.http.post("/v1/histories", content=line(1), headers=NDJSON)
    assert (answer.status_code, problem_of(answer)["code"]) == (413, "too_large")
    answer = api.http.post("/v1/histories", json=LINE)
    assert (answer.status_code, problem_of(answer)["code"]) == (415, "unsupported_media_type")
    answer = api.as_key(None).post("/v1/histories", content=line(1), headers=NDJSON)
    assert answer.status_code == 401


def test_the_client_sends_them_and_reads_what_proposals_rest_on(api: Api, serve: Serve) -> None:
    key = api.http.headers["authorization"].removeprefix("Bearer ")
    with Client(api.url, key) as client:
        assert client.metalearner()["experiments"] == 0
        found = client.import_histories([LINE, {**LINE, "features": {"rows": 3}}, LINE])
        assert (found.imported, found.duplicates, found.errors) == (2, 1, [])
        described = client.metalearner()
    assert (described["version"], described["experiments"], described["imported"]) == (0, 2, 2)


def test_a_fit_makes_histories_of_what_has_finished(api: Api) -> None:
    experiment = api.submit()
    path, lease = api.lease(experiment)
    assert api.http.post(f"{path}/complete", json={"lease": lease, "value": 0.5}).status_code == 200
    api.http.post(f"/v1/experiments/{experiment}/cancel")
    assert api.http.get("/v1/metalearner").json()["waiting"] is True
    answer = api.http.post("/v1/metalearner/fit", json={})
    assert answer.status_code == 202
    assert (answer.json()["experiments"], answer.json()["trials"], answer.json()["waiting"]) == (1, 1, False)


def test_a_fit_is_listed_and_only_what_was_in_use_can_be_rolled_back_to(api: Api) -> None:
    assert api.http.post("/v1/histories", content=line(1), headers=NDJSON).status_code == 200
    started = api.http.post("/v1/metalearner/fit", json={}).json()
    assert (started["version"], started["kind"], started["model"]) == (0, "portfolio", None)
    (fitting,) = started["versions"]
    assert (fitting["version"], fitting["state"], fitting["experiments"], fitting["fitted"]) == (1, "FITTING", 1, 0)
    answer = api.http.post("/v1/metalearner/rollback", json={"version": 1})
    assert (answer.status_code, problem_of(answer)["code"]) == (409, "not_promotable")
    answer = api.http.post("/v1/metalearner/rollback", json={"version": 2})
    assert (answer.status_code, problem_of(answer)["code"]) == (404, "not_found")
    answer = api.http.post("/v1/metalearner/rollback", json={"version": 0})
    assert (answer.status_code, problem_of(answer)["code"]) == (422, "invalid_request")


def test_the_command_shows_the_models_and_says_why_one_cannot_be_used(api: Api) -> None:
    def run(*arguments: str) -> Result:
        key = api.http.headers["authorization"].removeprefix("Bearer ")
        return CliRunner().invoke(app, ["--url", api.url, "--api-key", key, "model", *arguments])

    assert "no model has been fitted yet" in run().stderr
    post(api, line(1))
    assert "FITTING" in run("fit").stdout
    assert orjson.loads(run("show", "--json").stdout)["versions"][0]["state"] == "FITTING"
    refused = run("rollback", "1")
    assert (refused.exit_code, "model 1 is FITTING" in refused.stderr) == (4, True)
