"""Datasets, lists, files and histories: what is sent, what comes back, and what a broken transfer leaves."""

from __future__ import annotations

import json

import pytest

from foretune import Float
from foretune.errors import ClientError, InvalidDataset, InvalidRequest, NotFound

DATASET = {
    "id": "dst_1", "name": "churn", "task": "classification", "modality": "tabular", "views": ["tabular"], "rows": 9,
    "features": 2, "sha256": "0", "size_bytes": 5, "builtin": False, "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
PENDING = {
    "id": "dst_1", "name": "churn", "state": "PARSING", "sha256": "0", "size_bytes": 5,
    "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


def test_an_upload_that_is_repeated_is_byte_for_byte_the_same_request(service, client, tmp_path) -> None:
    # given a connection that breaks after the upload
    path = tmp_path / "churn.csv"
    path.write_bytes(b"a,left\n" + b"1,0\n" * 50_000)
    service.on("POST", "/v1/datasets", service.drop(), service.answer(DATASET, 201))
    # when
    dataset = client.datasets.upload(path, target="left", task="classification")
    # then
    assert dataset.id == "dst_1"
    first, second = service.received
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert path.read_bytes() in first.body
    for name, value in (("name", "churn"), ("target", "left"), ("task", "classification")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in first.body
    assert b'filename="churn.csv"' in first.body


def test_content_can_be_uploaded_without_a_file(service, client) -> None:
    service.on("POST", "/v1/datasets", service.answer(DATASET, 201))
    client.datasets.upload(("churn.csv", b"a,b\n1,2\n"), name="other")
    assert b'name="name"\r\n\r\nother\r\n' in service.received[0].body
    assert b"a,b\n1,2\n" in service.received[0].body


def test_an_upload_that_a_worker_still_reads_is_waited_for(service, client) -> None:
    service.on("POST", "/v1/datasets", service.answer(PENDING, 202))
    service.on("GET", "/v1/datasets/dst_1", service.answer(PENDING), service.answer(DATASET))
    assert client.datasets.upload(("churn.csv", b"a")).rows == 9


def test_a_file_that_is_no_dataset_is_refused_with_the_workers_words(service, client) -> None:
    service.on("POST", "/v1/datasets", service.answer(PENDING, 202))
    fault = {"code": "invalid_dataset", "message": "line 3 has 4 fields, the header has 2"}
    service.on("GET", "/v1/datasets/dst_1", service.answer({**PENDING, "state": "FAILED", "error": fault}))
    with pytest.raises(InvalidDataset, match="line 3 has 4 fields"):
        client.datasets.upload(("churn.csv", b"a"))


def test_a_missing_file_is_said_before_anything_is_sent(service, client, tmp_path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere.csv cannot be read: No such file"):
        client.datasets.upload(tmp_path / "nowhere.csv")
    assert service.received == []


def test_lists_go_on_over_pages_and_stop_at_the_limit(service, client) -> None:
    # given three pages of two
    def page(request):
        start = int(request.path.partition("cursor=")[2] or 0)
        items = [{**DATASET, "name": f"d{start + n}"} for n in range(2)]
        return service.answer({"items": items, "next": str(start + 2) if start < 4 else None})

    service.on("GET", "/v1/datasets", page)
    assert [one.name for one in client.datasets.list()] == ["d0", "d1", "d2", "d3", "d4", "d5"]
    assert [one.name for one in client.datasets.list(limit=3)] == ["d0", "d1", "d2"]
    assert "limit=3" in service.received[-2].path


def test_a_download_appears_whole_or_not_at_all(service, client, tmp_path) -> None:
    # given an export that breaks off, then works
    path = "/v1/experiments/exp_1/export"
    service.on("GET", path, service.answer(raw=b"0123456789", cut=4), service.answer(raw=b"0123456789"))
    target = tmp_path / "trials.csv"
    target.write_text("older")
    # when / then
    assert client.experiments.export("exp_1", target) == target
    assert target.read_bytes() == b"0123456789"
    # given one that does not exist: the file that was there stays, and nothing half-made lies beside it
    service.on("GET", path, service.problem(404, "not_found"))
    with pytest.raises(NotFound):
        client.experiments.export("exp_1", target)
    assert target.read_bytes() == b"0123456789"
    assert [one.name for one in tmp_path.iterdir()] == ["trials.csv"]
    with pytest.raises(InvalidRequest, match="csv, jsonl, parquet, not 'xls'"):
        client.experiments.export("exp_1", tmp_path / "trials.xls")
    with pytest.raises(ClientError, match="cannot be written"):
        client.experiments.export("exp_1", tmp_path / "no" / "trials.csv")


def test_histories_travel_in_pieces_and_faults_keep_their_line(service, client, tmp_path, monkeypatch) -> None:
    # given a file larger than one request, with a wrong line in the second piece
    monkeypatch.setattr("foretune.client.recommendations._CHUNK_BYTES", 40)

    def take(request):
        lines = request.body.splitlines()
        errors = [
            {"line": n, "code": "invalid_history", "detail": "no trials"} for n, x in enumerate(lines, 1) if x == b"{}"
        ]
        good = sum(1 for line in lines if line.strip()) - len(errors)
        return service.answer({"imported": good, "duplicates": 1, "errors": errors})

    service.on("POST", "/v1/histories", take)
    path = tmp_path / "old.jsonl"
    path.write_text(
        "\n".join(['{"name": "first"}', "", '{"name": "second"}', '{"name": "third"}', "{}", '{"name": "6"}'])
    )
    # when
    answer = client.import_histories(path)
    # then
    assert len(service.received) > 1
    assert (answer.imported, answer.duplicates) == (4, len(service.received))
    assert [(fault.line, fault.detail) for fault in answer.errors] == [(5, "no trials")]
    # and values are taken as well as files
    assert client.import_histories([{"name": "a"}, {"name": "b"}]).imported == 2
    assert client.import_histories(b'{"name": "a"}\n').imported == 1
    assert client.import_histories(b"").imported == 0
    assert service.received[-1].headers["content-type"] == "application/x-ndjson"


def test_a_recommendation_is_asked_for_with_what_was_given(service, client) -> None:
    answer = {
        "id": "rec_1",
        "recommendations": [],
        "confidence": "none",
        "model": {"version": 0, "experiments": 0, "trials": 0},
    }
    service.on("POST", "/v1/recommendations", service.answer(answer))
    client.recommend(features={"rows": 5}, space=[Float("lr", 1e-5, 1)], metric=("val_loss", "minimize"), count=1)
    assert json.loads(service.received[0].body) == {
        "features": {"rows": 5.0}, "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 1.0, "log": False}],
        "metric": {"name": "val_loss", "goal": "minimize"}, "max_epochs": 20, "count": 1,
    }  # fmt: skip
    with pytest.raises(InvalidRequest, match="either dataset or features"):
        client.recommend(network="mlp")


def test_waiting_ends_with_the_experiment_or_with_patience(service, client) -> None:
    info = {
        "id": "exp_1", "name": "n", "state": "RUNNING", "mode": "managed", "created_at": "2026-01-01T00:00:00Z",
        "metric": {"name": "val_loss", "goal": "minimize"}, "space": [], "fixed": {}, "budget": {},
        "stopping": "auto", "proposer": "auto", "priors": "auto", "parallelism": 1, "seed": 0, "share_history": True,
        "labels": {}, "features": {}, "last_event": 0,
        "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0},
    }  # fmt: skip
    service.on("GET", "/v1/experiments/exp_1", service.answer(info))
    experiment = client.experiments.get("exp_1")
    with pytest.raises(ClientError, match="still RUNNING") as caught:
        experiment.wait(timeout_s=0.15)
    assert caught.value.code == "timeout"
    service.on("GET", "/v1/experiments/exp_1", service.answer(info), service.answer({**info, "state": "FAILED"}))
    assert experiment.wait().state == "FAILED"


def test_a_budget_can_be_raised_with_what_is_given_only(service, client) -> None:
    service.on("PATCH", "/v1/experiments/exp_1", service.problem(409, "finished", "it is COMPLETED"))
    with pytest.raises(Exception, match="it is COMPLETED"):
        client.experiments.patch("exp_1", budget={"max_trials": 128})
    assert service.received[0].json == {"budget": {"max_trials": 128}}


def test_none_lifts_a_limit(service, client) -> None:
    service.on("PATCH", "/v1/experiments/exp_1", service.problem(409, "finished", "it is COMPLETED"))
    with pytest.raises(Exception, match="it is COMPLETED"):
        client.experiments.patch("exp_1", budget={"max_total_epochs": None, "target": None})
    assert service.received[0].json == {"budget": {"max_total_epochs": None, "target": None}}
    with pytest.raises(InvalidRequest, match="max_trials: must be a number"):
        client.experiments.patch("exp_1", budget={"max_trials": None})
