"""The service itself: health, numbers, the page about the API, and what its process is made of."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped]
import pytest

from foretune.wire.datasets import DatasetUpload
from service.db import workers as worker_rows
from service.db.session import Database
from tests.service.api.conftest import EXTERNAL, Api, Serve, broken, problem_of
from workers.parsing import publish_builtins
from workers.process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project


def test_alive(api: Api) -> None:
    answer = api.as_key(None).get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_ready_only_when_every_part_answers(api: Api, database: Database, network: str, worker: WorkerProcess) -> None:
    without = api.as_key(None).get("/readyz")
    assert without.status_code == 503
    assert without.json()["ready"] is False
    assert without.json()["parts"]["database"] == "ok"
    assert without.json()["parts"]["broker"] == "ok"
    assert "none was seen" in without.json()["parts"]["workers"]

    publish_builtins(worker)
    with database.transaction() as tx:
        for kind in ("train", "desk"):
            worker_rows.seen(tx, f"wrk_{kind}", kind=kind, host="here", pid=1, device="cpu")
    ready = api.as_key(None).get("/readyz")
    assert (ready.status_code, set(ready.json()["parts"].values())) == (200, {"ok"})


def test_built_in_data_sets_are_everybodys(api: Api, worker: WorkerProcess) -> None:
    publish_builtins(worker)
    assert api.http.get("/v1/datasets/iris").json()["builtin"] is True
    assert problem_of(api.http.delete("/v1/datasets/iris"))["code"] == "builtin_dataset"
    taken = api.http.post("/v1/datasets", files={"file": ("iris.csv", b"a,b\n1,2\n")})
    assert problem_of(taken)["code"] == "name_taken"


def test_not_ready_says_what_is_away(serve: Serve) -> None:
    api = serve(
        database_url="postgresql+psycopg://nobody@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1/0",
    )
    answer = api.as_key(None).get("/readyz")
    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert "does not answer" in parts["database"]
    assert "does not answer" in parts["broker"]


def test_metrics_count_calls_and_tell_what_the_database_knows(api: Api) -> None:
    api.submit()
    api.http.get("/v1/experiments/exp_secret")
    text = api.as_key(None).get("/metrics").text
    assert re.search(r'foretune_experiments\{state="QUEUED"\} [1-9]', text)
    assert "foretune_database_up 1.0" in text
    assert re.search(r'route="/v1/experiments/\{experiment_id\}",status="404"\} [1-9]', text)
    assert "exp_secret" not in text


def test_metrics_outlive_the_database(serve: Serve) -> None:
    text = serve(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none").as_key(None).get("/metrics").text
    assert "foretune_database_up 0.0" in text
    assert "foretune_http_request_seconds" in text


def test_the_page_needs_no_other_machine(api: Api) -> None:
    browser = api.as_key(None)
    page = browser.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("<!doctype", "")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert browser.get(address).status_code == 200, address
    assert browser.get("/docs/../problems.py").status_code == 404
    assert problem_of(browser.get("/docs/other.js"))["status"] == 404
    assert browser.get("/").headers["location"] == "/docs"


def test_keys_and_bodies_stay_out_of_the_log(serve: Serve, project: Project, log: Callable[[], str]) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    api = serve()
    made = api.http.post("/v1/keys", json={"name": "private-name"}).json()
    api.as_key(made["key"]).get("/v1/experiments")
    with broken(api):
        assert api.http.get("/v1/experiments").status_code == 500
    written = log()
    assert "answered" in written
    assert "Traceback" in written
    for secret in (project.key, made["key"], "private-name"):
        assert secret not in written


class TestDocument:
    @pytest.fixture
    def document(self, api: Api) -> dict[str, object]:
        answer = api.as_key(None).get("/openapi.json")
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def test_every_operation_is_named_tagged_and_explained(self, document: dict[str, object]) -> None:
        ids = []
        for path, item in document["paths"].items():  # type: ignore[attr-defined]
            for operation in item.values():
                ids.append(operation["operationId"])
                assert operation["tags"], path
                assert operation["description"], path
                assert operation["security"] == ([{"key": []}] if path.startswith("/v1") else []), path
        assert len(ids) == len(set(ids))

    def test_every_error_is_a_problem(self, document: dict[str, object]) -> None:
        for path, item in document["paths"].items():  # type: ignore[attr-defined]
            for method, operation in item.items():
                errors = {status: one for status, one in operation["responses"].items() if status >= "400"}
                expected = {"422", "500"} | ({"401", "429", "503"} if path.startswith("/v1") else set())
                if "requestBody" in operation:
                    expected |= {"413", "415"}
                if "{" in path:
                    expected |= {"404"}
                assert expected <= set(errors), (method, path)
                for status, one in errors.items():
                    if path != "/readyz" or status != "503":
                        assert list(one["content"]) == ["application/problem+json"], (path, status)

    def test_every_reference_leads_somewhere_and_every_body_has_an_example(self, document: dict[str, object]) -> None:
        schemas = document["components"]["schemas"]  # type: ignore[index]
        for name in set(re.findall(r"#/components/schemas/([\w-]+)", repr(document))):
            assert name in schemas, name
        for path, item in document["paths"].items():  # type: ignore[attr-defined]
            for operation in item.values():
                for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                    schema = body["schema"]
                    if kind == "application/json":
                        examples = schemas[schema["$ref"].rpartition("/")[2]].get("examples")
                        assert examples, path
                        for example in examples:
                            jsonschema.validate(example, {**schema, "components": document["components"]})

    def test_every_success_has_an_example_and_every_example_is_valid(self, document: dict[str, object]) -> None:
        def valid(example: object, schema: dict[str, object]) -> None:
            jsonschema.validate(example, {**schema, "components": document["components"]})

        for path, item in document["paths"].items():  # type: ignore[attr-defined]
            for operation in item.values():
                bodies = dict(operation.get("requestBody", {}).get("content", {}))
                for status, answer in operation["responses"].items():
                    if status < "300":
                        assert answer.get("content") or status == "204", (path, status)
                        bodies |= {(status, kind): one for kind, one in answer.get("content", {}).items()}
                for kind, body in bodies.items():
                    if kind == "application/json":
                        continue
                    assert "example" in body, (path, kind)
                    if isinstance(kind, str) or kind[1] == "application/json":
                        shown = body["example"]
                        valid(json.dumps(shown) if kind == "application/x-ndjson" else shown, body["schema"])
        for name, schema in document["components"]["schemas"].items():  # type: ignore[index]
            for example in schema.get("examples", []):
                valid(example, {"$ref": f"#/components/schemas/{name}"})

    def test_every_field_is_explained(self, document: dict[str, object]) -> None:
        for name, schema in document["components"]["schemas"].items():  # type: ignore[index]
            for field, said in schema.get("properties", {}).items():
                assert said.get("description") or "const" in said, f"{name}.{field}"

    def test_a_parameter_without_its_type_is_invalid_by_the_document_too(self, document: dict[str, object]) -> None:
        schema = {"$ref": "#/components/schemas/ExperimentRequest", "components": document["components"]}
        jsonschema.validate(EXTERNAL, schema)
        untyped = {**EXTERNAL, "space": [{"name": "lr", "low": 0.0, "high": 1.0}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(untyped, schema)

    def test_real_problems_are_what_the_document_says(self, api: Api, document: dict[str, object]) -> None:
        schema = document["components"]["schemas"]["Problem"]  # type: ignore[index]
        for answer in (api.http.get("/v1/nothing"), api.http.post("/v1/experiments", json={"mode": "x"})):
            jsonschema.validate(answer.json(), schema)

    def test_the_form_of_an_upload_has_the_fields_that_are_read(self, document: dict[str, object]) -> None:
        operation = document["paths"]["/v1/datasets"]["post"]  # type: ignore[index]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["properties"]) == {"file", *DatasetUpload.model_fields}
        assert form["required"] == ["file"]


def test_the_api_imports_neither_torch_nor_its_kin() -> None:
    program = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'torch', 'sklearn', 'scipy', 'botorch', 'workers', 'metalearner'}:
            raise ImportError(f'{name} must not be imported')
sys.meta_path.insert(0, Refusing())
import service.api.__main__
from service.api.app import create_app
from service.settings import Settings
assert create_app(Settings()).openapi()['paths']
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
