"""Bad input to the live service: a precise problem document, never a traceback or a hang, and it goes on serving."""

from __future__ import annotations

import io
import json
import pickle
import uuid
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from foretune.json_types import JsonObject, JsonValue

if TYPE_CHECKING:
    import httpx

    from tests.faults.conftest import Live

CYCLE: list[JsonValue] = [
    {"name": "a", "type": "bool", "when": {"b": [True]}},
    {"name": "b", "type": "bool", "when": {"a": [True]}},
]
EMPTY: list[JsonValue] = [{"name": "x", "type": "categorical", "choices": []}]
EXTERNAL: JsonObject = {
    "mode": "external",
    "space": [{"name": "x", "type": "float", "low": 0.0, "high": 1.0}],
    "metric": {"name": "score", "goal": "maximize"},
    "budget": {"max_trials": 3, "max_epochs": 2},
}
MANAGED: JsonObject = {"mode": "managed", "dataset": "digits", "network": "mlp"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, JsonValue]:
    """The problem document, checked for form: what every refusal must look like."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, JsonValue] = answer.json()
    assert (told["status"], told["code"]) == (status, code), told
    assert told["title"]
    assert told["detail"]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    return told


@pytest.fixture(autouse=True)
def _serves_afterwards(live: Live) -> Iterator[None]:
    yield
    assert live.http.get("/v1/experiments").status_code == 200


def parameter(**fields: JsonValue) -> JsonObject:
    return {**EXTERNAL, "space": [{"name": "x", "type": "float", "low": 0.0, "high": 1.0, **fields}]}


class TestSubmissions:
    @pytest.mark.parametrize(
        ("body", "code", "place", "words"),
        [
            ({**MANAGED, "dataset": "mnist"}, "invalid_experiment", ["body", "dataset"], "'mnist'; there are"),
            ({**MANAGED, "network": "vit"}, "invalid_experiment", ["body", "network"], "'vit'; there are"),
            (parameter(type="number"), "invalid_request", ["body", "space", 0], "'float', 'int'"),
            (parameter(low=1.0, high=1.0), "invalid_request", ["body", "space", 0], "low must be less than high"),
            (parameter(log=True), "invalid_request", ["body", "space", 0], "low must be greater than 0"),
            (
                {**EXTERNAL, "space": EMPTY},
                "invalid_request",
                ["body", "space", 0, "choices"],
                "at least 1 item",
            ),
            (
                {**EXTERNAL, "space": CYCLE},
                "invalid_space",
                ["body", "space", 0, "when", "b"],
                "a cycle",
            ),
            ({**EXTERNAL, "seed": 10**40}, "invalid_request", ["body", "seed"], ""),
            ({**EXTERNAL, "budget": {"max_trials": 2**64}}, "invalid_request", ["body", "budget", "max_trials"], ""),
            ({**EXTERNAL, "surprise": 1}, "invalid_request", ["body", "surprise"], "not permitted"),
            (parameter(name="a\x00b"), "invalid_request", ["body", "space", 0, "name"], "U+0000"),
            ({**EXTERNAL, "name": "\ud800"}, "invalid_request", None, ""),
        ],
        ids=lambda value: value if isinstance(value, str) and " " in value else None,
    )
    def test_what_cannot_be_tuned_is_refused_where_it_is_wrong(
        self, live: Live, body: JsonObject, code: str, place: list[str | int] | None, words: str
    ) -> None:
        content = json.dumps(body)
        answer = live.http.post("/v1/experiments", content=content, headers={"content-type": "application/json"})
        told = problem(answer, 422, code)
        if place is None:
            return
        errors = told["errors"]
        assert isinstance(errors, list)
        found = [one for one in errors if isinstance(one, dict) and one["loc"][: len(place)] == place]  # type: ignore[index]
        assert any(words in str(one["msg"]) for one in found), errors

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
    def test_numbers_that_json_does_not_have(self, live: Live, number: str) -> None:
        content = json.dumps(EXTERNAL)[:-1] + f', "seed": {number}}}'
        answer = live.http.post("/v1/experiments", content=content, headers={"content-type": "application/json"})
        problem(answer, 422, "invalid_request")

    @pytest.mark.parametrize("text", ["[" * 2_500_000 + "]" * 2_500_000, '{"a":' * 1_000_000 + "1" + "}" * 1_000_000])
    def test_megabytes_of_nesting(self, live: Live, text: str) -> None:
        answer = live.http.post("/v1/experiments", content=text, headers={"content-type": "application/json"})
        problem(answer, 413, "too_large")

    def test_nesting_within_the_limit_of_a_body(self, live: Live) -> None:
        text = "[" * 1_000_000 + "]" * 1_000_000
        answer = live.http.post("/v1/experiments", content=text, headers={"content-type": "application/json"})
        problem(answer, 422, "invalid_request")

    def test_a_key_with_another_request(self, live: Live) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = live.http.post("/v1/experiments", json=EXTERNAL, headers=headers)
        again = live.http.post("/v1/experiments", json=EXTERNAL, headers=headers)
        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        other = live.http.post("/v1/experiments", json={**EXTERNAL, "name": "other"}, headers=headers)
        problem(other, 409, "idempotency_conflict")


def npz(**arrays: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.savez(written, **arrays)  # type: ignore[arg-type]
    return written.getvalue()


def npz_that_unpickles() -> bytes:
    """An archive whose array runs code when it is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('unpickled')",)

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("X.npy", header.getvalue() + pickle.dumps([Trap()]))
        archive.writestr("y.npy", npz(y=np.zeros(1)))
    return written.getvalue()


def rows(*lines: str) -> bytes:
    return "\n".join(lines).encode()


class TestUploads:
    @pytest.mark.parametrize(
        ("filename", "content", "words"),
        [
            ("one-column.csv", rows("a", "1", "2", "3"), "column"),
            ("one-row.csv", rows("a,b", "1,2"), "row"),
            ("header-alone.csv", rows("a,b"), "row"),
            ("constant.csv", rows("a,b", *(f"{n},1" for n in range(50))), "constant"),
            ("classes.csv", rows("a,b", *(f"{n},class{n}" for n in range(10_000))), "10,000"),
            ("colons.csv", rows("a:b:c", *(f"{n}:{n}:{n % 2}" for n in range(50))), "save the file with commas"),
            ("latin.csv", "größe,b\n1,2\n3,4\n".encode("latin-1"), "UTF-8"),
            ("objects.npz", npz(X=np.array([{"a": 1}, 2], dtype=object), y=np.zeros(2)), "object"),
            ("trap.npz", npz_that_unpickles(), "object"),
            ("no-y.npz", npz(X=np.zeros((9, 2))), "y"),
            ("not-a-zip.npz", b"PK\x03\x04 garbage", ""),
            ("not-parquet.parquet", b"PAR1 garbage", ""),
        ],
        ids=lambda value: value if isinstance(value, str) and "." in value else None,
    )
    def test_a_file_that_is_no_data_set_says_why(self, live: Live, filename: str, content: bytes, words: str) -> None:
        name = f"bad-{uuid.uuid4()}"
        answer = live.http.post("/v1/datasets", files={"file": (filename, content)}, data={"name": name})
        told = problem(answer, 422, "invalid_dataset")
        assert words.lower() in str(told["detail"]).lower(), told["detail"]
        assert live.http.get(f"/v1/datasets/{name}").status_code == 404
        good = rows("a,b", *(f"{n},{'xy'[n % 2]}" for n in range(40)))
        again = live.http.post("/v1/datasets", files={"file": ("good.csv", good)}, data={"name": name})
        assert again.status_code in (200, 201), "the name is free again"
        assert live.http.delete(f"/v1/datasets/{again.json()['id']}").status_code == 204

    def test_an_empty_file(self, live: Live) -> None:
        answer = live.http.post("/v1/datasets", files={"file": ("empty.csv", b"")}, data={"name": "empty"})
        assert "empty" in str(problem(answer, 422, "invalid_request")["detail"])

    def test_a_byte_order_mark_is_no_fault(self, live: Live) -> None:
        content = b"\xef\xbb\xbf" + rows("a,b", *(f"{n},{'xy'[n % 2]}" for n in range(41)))
        answer = live.http.post(
            "/v1/datasets", files={"file": ("bom.csv", content)}, data={"name": f"bom-{uuid.uuid4()}", "target": "b"}
        )
        assert answer.status_code == 201, answer.text
        assert (answer.json()["features"], answer.json()["target"]) == (1, "b")
        assert live.http.delete(f"/v1/datasets/{answer.json()['id']}").status_code == 204

    def test_the_limit_holds_to_the_byte(self, live: Live) -> None:
        """Given a file of exactly the limit and one that is one byte longer, only the first is read."""
        line = b"1,2,x\n"
        limit = 3 * 2**20
        content = b"a,b,label\n" + line * (limit // len(line))
        content = content[: limit - 1] + b"\n"
        assert len(content) == limit
        name = f"long-{uuid.uuid4()}"
        over = live.http.post("/v1/datasets", files={"file": ("long.csv", content + b"\n")}, data={"name": name})
        problem(over, 413, "too_large")
        assert live.http.get(f"/v1/datasets/{name}").status_code == 404
        exact = live.http.post("/v1/datasets", files={"file": ("long.csv", content)}, data={"name": name})
        assert exact.status_code != 413


class TestClients:
    def test_two_clients_complete_one_trial(self, live: Live) -> None:
        experiment = live.http.post("/v1/experiments", json=EXTERNAL).json()["id"]
        trial = live.http.post(f"/v1/experiments/{experiment}/suggestions", json={"wait_seconds": 0}).json()["trials"][
            0
        ]
        body = {"lease": trial["lease"]["token"], "value": 0.5}
        path = f"/v1/trials/{trial['id']}/complete"
        first, again = (live.http.post(path, json=body) for _ in range(2))
        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()
        problem(live.http.post(path, json={**body, "value": 0.75}), 409, "trial_finished")
        assert live.http.get(f"/v1/trials/{trial['id']}").json()["value"] == 0.5

    def test_a_measurement_for_a_finished_trial(self, live: Live) -> None:
        experiment = live.http.post("/v1/experiments", json=EXTERNAL).json()["id"]
        trial = live.http.post(f"/v1/experiments/{experiment}/suggestions", json={"wait_seconds": 0}).json()["trials"][
            0
        ]
        lease = trial["lease"]["token"]
        live.http.post(f"/v1/trials/{trial['id']}/complete", json={"lease": lease, "value": 0.5}).raise_for_status()
        body = {"lease": lease, "measurements": [{"epoch": 1, "value": 9.0}]}
        problem(live.http.post(f"/v1/trials/{trial['id']}/measurements", json=body), 409, "trial_finished")
        assert live.http.get(f"/v1/trials/{trial['id']}/measurements").json()["items"] == []

    def test_a_stale_lease(self, live: Live) -> None:
        """Given a lease ran out and the trial went to another client, the first one's words change nothing."""
        experiment = live.http.post("/v1/experiments", json=EXTERNAL).json()["id"]
        ask = f"/v1/experiments/{experiment}/suggestions"
        trial = live.http.post(ask, json={"wait_seconds": 0}).json()["trials"][0]
        live.sql("UPDATE trials SET lease_until = now() - interval '1 hour' WHERE id = :id", id=trial["id"])
        path = f"/v1/trials/{trial['id']}"
        wait_for_state(live, path, "QUEUED")
        body = {"lease": trial["lease"]["token"], "measurements": [{"epoch": 1, "value": 9.0}]}
        problem(live.http.post(f"{path}/measurements", json=body), 409, "lease_lost")
        again = live.http.post(ask, json={"wait_seconds": 0}).json()["trials"][0]
        assert again["id"] == trial["id"]
        problem(live.http.post(f"{path}/measurements", json=body), 409, "lease_lost")
        problem(live.http.post(f"{path}/heartbeat", json={"lease": body["lease"]}), 409, "lease_lost")
        problem(live.http.post(f"{path}/complete", json={"lease": body["lease"], "value": 1}), 409, "lease_lost")
        told = live.http.get(path).json()
        assert (told["attempts"], told["value"], told["state"]) == (2, None, "RUNNING")

    def test_an_exhausted_budget(self, live: Live) -> None:
        experiment = live.http.post("/v1/experiments", json=EXTERNAL).json()["id"]
        ask = f"/v1/experiments/{experiment}/suggestions"
        assert len(live.http.post(ask, json={"count": 9, "wait_seconds": 0}).json()["trials"]) == 3
        problem(live.http.post(ask, json={"wait_seconds": 0}), 409, "budget_exhausted")


class TestRunning:
    def test_canceled_while_it_trains(self, live: Live) -> None:
        """Given a running job is canceled, its results stay and the worker is free for the next one."""
        experiment = live.submit(budget={"max_trials": 50, "max_epochs": 200})
        for event in experiment.stream():
            if event.type == "trial.measurement":
                break
        experiment.cancel()
        told = experiment.refresh().info
        assert (told.state, told.reason) == ("CANCELED", "canceled by request")
        assert told.best is not None
        assert told.progress.epochs > 0
        events = list(experiment.stream())
        assert [event.sequence for event in events] == list(range(1, told.last_event + 1))
        assert live.submit(budget={"max_trials": 1, "max_epochs": 1}).wait(timeout_s=60).state == "COMPLETED"
        assert experiment.refresh().info.last_event == told.last_event, "nothing is written after the end"

    def test_deleted_while_it_trains(self, live: Live) -> None:
        """Given a running job, deleting it is refused; after canceling it goes with all its files."""
        experiment = live.submit(budget={"max_trials": 50, "max_epochs": 200})
        for event in experiment.stream():
            if event.type == "trial.measurement" and int(str(event.data["epoch"])) > 5:
                break
        path = f"/v1/experiments/{experiment.id}"
        problem(live.http.delete(path), 409, "experiment_not_finished")
        experiment.cancel()
        assert live.http.delete(path).status_code == 204
        problem(live.http.get(path), 404, "not_found")
        problem(live.http.get(f"{path}/events"), 404, "not_found")
        assert live.submit(budget={"max_trials": 1, "max_epochs": 1}).wait(timeout_s=60).state == "COMPLETED"
        assert [file for file in live.artifacts_of(experiment.id) if file.is_file()] == []

    def test_a_data_set_in_use_stays(self, live: Live) -> None:
        name = f"mine-{uuid.uuid4()}"
        content = rows("a,b,label", *(f"{n},{n * n % 7},{'xy'[n % 2]}" for n in range(300)))
        made = live.http.post("/v1/datasets", files={"file": ("mine.csv", content)}, data={"name": name})
        assert made.status_code in (200, 201), made.text
        experiment = live.submit(dataset=name, fixed={}, space=None, budget={"max_trials": 50, "max_epochs": 100})
        problem(live.http.delete(f"/v1/datasets/{name}"), 409, "dataset_in_use")
        experiment.cancel()
        assert live.http.delete(f"/v1/datasets/{name}").status_code == 204


def wait_for_state(live: Live, path: str, state: str) -> None:
    for _ in range(600):
        if live.http.get(path).json()["state"] == state:
            return
        live.wait(0.05)
    raise AssertionError(f"{path} did not become {state}")
