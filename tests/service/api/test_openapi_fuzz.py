"""The live stack, asked what its OpenAPI document allows and what it does not: no 5xx, no answer it did not announce.

Schemathesis makes the requests up: examples of the document, the edges of every schema, and random bodies. They go to
an API process of their own on the live stack, whose streams end at once, in a project of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from sqlalchemy import delete

from service.api.app import create_app
from service.db.session import Database
from service.db.tables import projects
from service.embedded import children
from service.embedded.ports import claim_port
from service.settings import Settings
from tests.conftest import make_project, wait_until

if TYPE_CHECKING:
    from schemathesis import APIOperation

    from service.embedded.stack import RunningStack

Case: TypeAlias = "schemathesis.Case[APIOperation[object, object, object, object]]"

# A schema cannot say that `low` must be less than `high`: what fits the schema may still be refused with 422.
_NOT_ASKED: list[CheckFunction] = [positive_data_acceptance]
# Whatever is written down as lines of text is text; a bad line is told in the answer.
_READS_LINES = "application/x-ndjson"

_EXPERIMENT = {
    "mode": "external",
    "metric": {"name": "loss", "goal": "minimize"},
    "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 0.1, "log": True}],
    "budget": {"max_trials": 3, "max_epochs": 3},
}

# Every edge of a large body is some hundreds of calls: those are for the long run.
_LARGE_BODIES = ("create_experiment", "change_experiment", "recommend")
_brief = {"phases": {"coverage": {"enabled": False}}}
_openapi = create_app(Settings()).openapi()


class Fuzzed(NamedTuple):
    """The API that is asked, and a key to it."""

    url: str
    key: str
    http: httpx.Client


@contextmanager
def api_process(stack: RunningStack) -> Iterator[str]:
    """Another API process on the stack's servers, as one adds them in production; its URL."""
    plan = replace(stack.plan, port=claim_port("127.0.0.1", 0))
    described = children.api(plan)
    environment = {**(described.environment or os.environ), "FORETUNE_STREAM_MAX_S": "0.05"}
    with subprocess.Popen(
        described.argv,
        env=environment,
        cwd=described.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: _answers(plan.url))
            yield plan.url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        time.sleep(0.05)
        return False


@pytest.fixture(scope="module")
def fuzzed(stack: RunningStack) -> Iterator[Fuzzed]:
    """Afterwards the project is gone with all its experiments, so that workers are free for the next test."""
    database = Database(stack.plan.database_url, pool_size=1)
    project = make_project(database, f"fuzz-{uuid.uuid4().hex}")
    headers = {"Authorization": f"Bearer {project.key}"}
    with api_process(stack) as url, httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        yield Fuzzed(url, project.key, http)
        for state in ("QUEUED", "RUNNING", "PAUSED"):
            for experiment in http.get("/v1/experiments", params={"state": state, "limit": 500}).json()["items"]:
                if experiment["mode"] == "managed":
                    http.post(f"/v1/experiments/{experiment['id']}/cancel").raise_for_status()
    with database.transaction() as tx:
        tx.connection.execute(delete(projects).where(projects.c.id == project.id))
    database.close()


@schemathesis.serializer(_READS_LINES)
def _write_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode("utf-8", "replace")


def _ask(case: Case, fuzzed: Fuzzed) -> None:
    # The example of the document would be the same key for every body, and every answer but the first a 409.
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        _aim(case, fuzzed)
    reads_lines = case.media_type == _READS_LINES
    case.call_and_validate(
        base_url=fuzzed.url,
        headers={"Authorization": f"Bearer {fuzzed.key}"},
        excluded_checks=[*_NOT_ASKED, negative_data_rejection] if reads_lines else _NOT_ASKED,
        timeout=60,
    )


def _aim(case: Case, fuzzed: Fuzzed) -> None:
    """Lets a well-formed call hit something: an experiment of its own, a trial of it, its lease."""
    wanted = {"experiment_id", "trial_id"} & set(case.path_parameters)
    if not wanted:
        return
    experiment = fuzzed.http.post("/v1/experiments", json=_EXPERIMENT).raise_for_status().json()["id"]
    asked = fuzzed.http.post(f"/v1/experiments/{experiment}/suggestions", json={"wait_seconds": 0})
    trial = asked.raise_for_status().json()["trials"][0]
    case.path_parameters |= {name: experiment if name == "experiment_id" else trial["id"] for name in wanted}
    if isinstance(case.body, dict) and "lease" in case.body:
        case.body = {**case.body, "lease": trial["lease"]["token"]}


def _fuzzed(operation: str, examples: int, config: dict[str, object]) -> Callable[..., None]:
    document = schemathesis.openapi.from_dict(_openapi, config=SchemathesisConfig.from_dict(config))

    @document.include(operation_id=operation).parametrize()
    @settings(max_examples=examples, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
    def test(case: Case, fuzzed: Fuzzed) -> None:
        _ask(case, fuzzed)

    return test


# A test for each operation: Schemathesis would give all of them one node id, and runners share tests out by it.
for _operation in (operation["operationId"] for path in _openapi["paths"].values() for operation in path.values()):
    globals()[f"test_{_operation}"] = pytest.mark.timeout(300)(
        _fuzzed(_operation, 5, _brief if _operation in _LARGE_BODIES else {})
    )
    globals()[f"test_{_operation}_at_length"] = pytest.mark.slow(
        pytest.mark.timeout(3600)(_fuzzed(_operation, 150, {}))
    )
