"""Uploads: whole or not at all, once for the same content, refused by their words."""

from __future__ import annotations

import io
import os
import socket
import struct
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from foretune.client import Client
from foretune.errors import StorageFull
from tests.conftest import wait_until
from tests.service.api.conftest import EXTERNAL, Api, Serve, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.artifacts import Writer
    from tests.conftest import Project

CSV = b"x,y,kind\n" + b"".join(b"%d,%d,%s\n" % (n, n % 7, b"ab"[n % 2 : n % 2 + 1]) for n in range(60))


def upload(api: Api, content: bytes = CSV, filename: str = "toy.csv", **fields: str) -> httpx.Response:
    return api.http.post("/v1/datasets", files={"file": (filename, content)}, data=fields)


def kept(tmp_path: Path) -> list[Path]:
    """The files in the artifact store."""
    return [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("parser")
class TestReading:
    def test_an_upload_becomes_a_data_set(self, api: Api) -> None:
        made = upload(api, target="kind", task="classification")
        assert made.status_code == 201, made.text
        dataset = made.json()
        assert (dataset["name"], dataset["rows"], dataset["features"], dataset["classes"]) == ("toy", 60, 2, 2)
        assert dataset["size_bytes"] == len(CSV)
        for reference in (dataset["id"], "toy"):
            assert api.http.get(f"/v1/datasets/{reference}").json() == dataset
        assert [one["id"] for one in api.http.get("/v1/datasets").json()["items"]] == [dataset["id"]]

    def test_the_same_file_is_the_same_data_set(self, api: Api, tmp_path: Path) -> None:
        first = upload(api, target="kind")
        wait_until(lambda: len(kept(tmp_path)) == 1)  # the parser removes what was uploaded
        files = kept(tmp_path)
        again = upload(api, filename="other.csv", target="kind", name="second")
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert again.json()["warnings"] == [
            *first.json()["warnings"],
            "this file was uploaded before, as 'toy': it is stored under that name, and not as 'second'",
        ]
        # given the name that it has, there is nothing to warn of; nor is a reader warned
        assert upload(api, target="kind").json() == first.json()
        assert api.http.get("/v1/datasets/toy").json() == first.json()
        assert kept(tmp_path) == files
        other = upload(api, target="y", name="other")
        assert other.status_code == 201
        assert other.json()["id"] != first.json()["id"]

    def test_an_idempotency_key_gets_the_first_answer(self, api: Api) -> None:
        def send(content: bytes) -> httpx.Response:
            files = {"file": ("toy.csv", content)}
            return api.http.post("/v1/datasets", files=files, headers={"Idempotency-Key": "k"})

        first, again = send(CSV), send(CSV)
        assert (again.status_code, again.json()) == (201, first.json())
        assert problem_of(send(CSV + b"1,2,a\n"))["code"] == "idempotency_conflict"

    def test_a_file_that_is_no_data_set_is_refused_and_its_name_is_free(self, api: Api, tmp_path: Path) -> None:
        key = {"Idempotency-Key": "k"}
        for _ in range(2):
            answer = api.http.post("/v1/datasets", files={"file": ("toy.csv", b"a\n1\n2\n")}, headers=key)
            problem = problem_of(answer)
            assert (problem["status"], problem["code"]) == (422, "invalid_dataset")
            assert "one column" in str(problem["detail"])
        assert api.http.get("/v1/datasets").json()["items"] == []
        assert problem_of(api.http.get("/v1/datasets/toy"))["status"] == 404
        assert kept(tmp_path) == []
        assert upload(api, name="toy").status_code == 201

    def test_an_array_of_objects_is_never_unpickled(self, api: Api) -> None:
        import numpy as np

        file = io.BytesIO()
        np.savez(file, X=np.array([{"a": 1}] * 5, dtype=object), y=np.arange(5))
        problem = problem_of(upload(api, file.getvalue(), "objects.npz"))
        assert problem["code"] == "invalid_dataset"
        assert "object" in str(problem["detail"])

    def test_names_are_unique(self, api: Api) -> None:
        upload(api)
        assert problem_of(upload(api, CSV + b"1,2,a\n"))["code"] == "name_taken"

    def test_a_data_set_in_use_is_not_deleted(self, api: Api, network: str) -> None:
        dataset = upload(api, target="kind").json()["id"]
        request = {"mode": "managed", "dataset": "toy", "network": network}
        experiment = api.http.post("/v1/experiments", json=request).json()["id"]
        problem = problem_of(api.http.delete(f"/v1/datasets/{dataset}"))
        assert problem["code"] == "dataset_in_use"
        assert experiment in str(problem["detail"])
        api.http.post(f"/v1/experiments/{experiment}/cancel")
        assert api.http.delete("/v1/datasets/toy").status_code == 204
        assert problem_of(api.http.delete("/v1/datasets/toy"))["status"] == 404

    def test_deleting_takes_the_files_too(self, api: Api, tmp_path: Path) -> None:
        upload(api)
        assert kept(tmp_path)
        assert api.http.delete("/v1/datasets/toy").status_code == 204
        assert kept(tmp_path) == []

    def test_another_project_neither_sees_nor_meets_it(self, api: Api, other_project: Project) -> None:
        dataset = upload(api).json()["id"]
        stranger = api.as_key(other_project.key)
        for path in (f"/v1/datasets/{dataset}", "/v1/datasets/toy"):
            assert problem_of(stranger.get(path))["status"] == 404
            assert problem_of(stranger.delete(path))["status"] == 404
        theirs = stranger.post("/v1/datasets", files={"file": ("toy.csv", CSV)})
        assert theirs.status_code == 201
        assert theirs.json()["id"] != dataset

    def test_the_client_uploads(self, api: Api, project: Project) -> None:
        with Client(api.url, project.key) as client:
            assert client.datasets.upload(("toy.csv", CSV), target="kind").rows == 60


def test_the_limit_holds_to_the_byte(serve: Serve, tmp_path: Path, parser: None) -> None:
    api = serve(foretune_max_upload_bytes=len(CSV))
    problem = problem_of(upload(api, CSV + b"\n"))
    assert (problem["status"], problem["code"]) == (413, "too_large")
    assert str(len(CSV)) in str(problem["detail"])
    assert kept(tmp_path) == []
    assert upload(api).status_code == 201


def test_much_more_than_the_limit_is_refused(serve: Serve, tmp_path: Path) -> None:
    api = serve(foretune_max_upload_bytes=1000)
    assert problem_of(upload(api, bytes(5 * 2**20)))["code"] == "too_large"

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(50):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert problem_of(api.http.post("/v1/datasets", content=chunks(), headers=headers))["code"] == "too_large"
    assert kept(tmp_path) == []


def part(disposition: str, value: bytes = b"1") -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + value + b"\r\n"


FILE = part('form-data; name="file"; filename="a.csv"', CSV)
END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (END, ["body", "file"]),
        (part('form-data; name="name"') + END, ["body", "file"]),
        (part('form-data; name="file"; filename="a.csv"', b"") + END, ["body", "file"]),
        (part('form-data; name="file"') + END, ["body", "file"]),
        (FILE + FILE + END, ["body", "file"]),
        (FILE + part('form-data; name="colour"') + END, ["body", "colour"]),
        (FILE + part('form-data; name="name"') * 2 + END, ["body", "name"]),
        (FILE + part('form-data; name="name"; filename="x"') + END, ["body", "name"]),
        (FILE + part('form-data; name="name"', b"\xff") + END, ["body", "name"]),
        (FILE + part('form-data; name="name"', b"a\x00b") + END, ["body", "name"]),
        (FILE + part('form-data; name="name"', b"a/b") + END, ["body", "name"]),
        (FILE + part('form-data; name="name"', b"dst_1") + END, ["body", "name"]),
        (FILE + part('form-data; name="name"', b"x" * 5000) + END, ["body", "name"]),
        (FILE + part('form-data; name="task"', b"sorting") + END, ["body", "task"]),
        (FILE, None),
        (FILE[:40], None),
        (b"nonsense", None),
        (b"", None),
        (part("form-data") + END, None),
        (part('attachment; name="file"') + END, None),
        (b"--b\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n1\r\n" + END, None),
    ],
)
def test_malformed_forms_are_refused(api: Api, tmp_path: Path, body: bytes, loc: list[str] | None) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    problem = problem_of(api.http.post("/v1/datasets", content=body, headers=headers))
    assert problem["status"] == 422
    errors = problem["errors"]
    assert isinstance(errors, list)
    assert [error["loc"] for error in errors] == ([] if loc is None else [loc])
    assert kept(tmp_path) == []


def test_only_forms_are_uploads(api: Api) -> None:
    for content_type in ("application/json", "text/csv", "multipart/mixed; boundary=b"):
        answer = api.http.post("/v1/datasets", content=b"{}", headers={"Content-Type": content_type})
        assert problem_of(answer)["status"] == 415
    answer = api.http.post("/v1/datasets", content=b"{}", headers={"Content-Type": "multipart/form-data"})
    assert problem_of(answer)["status"] == 422


def test_a_full_disk_is_said_so_and_nothing_is_kept(api: Api, parser: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = api.parts.artifacts
    usual = store.writer

    def full(key: str) -> AbstractContextManager[Writer]:
        @contextmanager
        def writing() -> Iterator[Writer]:
            raise StorageFull
            yield  # type: ignore[unreachable]

        return writing()

    monkeypatch.setattr(store, "writer", full)
    assert problem_of(upload(api))["code"] == "storage_full"
    monkeypatch.setattr(store, "writer", usual)
    assert upload(api).status_code == 201


def test_a_client_that_goes_away_leaves_nothing(api: Api, tmp_path: Path, eventually: Callable[..., None]) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nAuthorization: {api.http.headers['authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        start = part('form-data; name="file"; filename="a.csv"', b"")[:-2]
        connection.sendall(head.encode() + start + bytes(3 * 2**20))
        eventually(lambda: kept(tmp_path))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: not kept(tmp_path))


def test_while_nobody_reads_it_the_answer_is_accepted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.datasets._PARSED_WITHIN_S", 0.05)
    answer = upload(api)
    assert (answer.status_code, answer.json()["state"]) == (202, "PARSING")
    assert api.http.get(f"/v1/datasets/{answer.json()['id']}").json()["state"] == "PARSING"
    request = {**EXTERNAL, "mode": "managed", "dataset": "toy", "network": "mlp"}
    assert problem_of(api.http.post("/v1/experiments", json=request))["code"] == "dataset_parsing"


def test_a_large_upload_is_stored_byte_for_byte(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.api.datasets._PARSED_WITHIN_S", 0.05)
    # Boundaries and line ends inside the content, over many reads and blocks.
    content = (b"\r\n--b\r\n--boundary" + os.urandom(4096)) * 1200
    answer = upload(api, content, "big.bin", name="big")
    assert answer.json()["size_bytes"] == len(content)
    assert [path.read_bytes() for path in kept(tmp_path)] == [content]
