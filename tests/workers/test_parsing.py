"""Uploads become data sets, or say why not; whatever happens no file is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from foretune.errors import NotFound
from foretune.ids import new_id
from foretune.wire.datasets import Dataset, DatasetState, PendingDataset, Task
from service.artifacts import ArtifactStore
from service.usecases import datasets
from service.usecases.datasets import Upload, parsed_key, upload_key
from workers.datasets import dataset as canonical
from workers.datasets.builtin import BUILTIN_NAMES
from workers.parsing import parse_dataset, publish_builtins
from workers.process import WorkerProcess

if TYPE_CHECKING:
    from tests.conftest import Project

ROWS = b"a,b,label\n" + b"".join(b"%d,%d,%s\n" % (n, n * n, b"xy"[n % 2 : n % 2 + 1]) for n in range(40))


def upload(process: WorkerProcess, project: Project, content: bytes, name: str = "mine") -> str:
    dataset_id = new_id("dst")
    process.artifacts.put_bytes(upload_key(dataset_id), content)
    with process.database.transaction() as tx:
        described = Upload(dataset_id, name, f"{name}.csv", None, None, str(hash(content)), len(content))
        return datasets.register_upload(tx, project.id, described)[0]


def status(process: WorkerProcess, project: Project, dataset_id: str) -> Dataset | PendingDataset:
    with process.database.transaction() as tx:
        return datasets.status(tx, project.id, dataset_id)


def test_a_table_becomes_a_data_set(process: WorkerProcess, project: Project) -> None:
    dataset_id = upload(process, project, ROWS)
    parse_dataset(process, dataset_id)
    told = status(process, project, dataset_id)
    assert isinstance(told, Dataset)
    assert (told.task, told.rows, told.features, told.classes) == (Task.CLASSIFICATION, 40, 2, 2)
    assert (told.target, told.views, told.builtin) == ("label", ["tabular"], False)
    assert told.meta_features
    assert not process.artifacts.exists(upload_key(dataset_id))
    with process.artifacts.local_copy(parsed_key(dataset_id)) as path:
        assert len(canonical.load(path).X) == 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a\n1\n2\n", "column"),
        (b"a,b\n1,2\n", "row"),
        (b"\xff\xfe\x00garbage", "UTF-8"),
        (b"PK\x03\x04 no archive", ""),
    ],
)
def test_what_is_none_says_why(process: WorkerProcess, project: Project, content: bytes, words: str) -> None:
    dataset_id = upload(process, project, content)
    parse_dataset(process, dataset_id)
    told = status(process, project, dataset_id)
    assert isinstance(told, PendingDataset)
    assert told.state is DatasetState.FAILED
    assert told.error is not None
    assert told.error.code == "invalid_dataset"
    assert words in told.error.message
    assert "Traceback" not in told.error.message
    assert not process.artifacts.exists(upload_key(dataset_id))


def test_a_lost_upload_says_so(process: WorkerProcess, project: Project) -> None:
    dataset_id = upload(process, project, ROWS)
    process.artifacts.delete(upload_key(dataset_id))
    parse_dataset(process, dataset_id)
    told = status(process, project, dataset_id)
    assert isinstance(told, PendingDataset)
    assert told.error is not None
    assert "the uploaded file is gone" in told.error.message


def test_a_message_that_comes_twice_does_nothing_twice(process: WorkerProcess, project: Project) -> None:
    dataset_id = upload(process, project, ROWS)
    parse_dataset(process, dataset_id)
    first = status(process, project, dataset_id)
    parse_dataset(process, dataset_id)
    assert status(process, project, dataset_id) == first


def test_deleted_while_it_was_read_it_leaves_nothing(
    process: WorkerProcess, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = upload(process, project, ROWS)

    class Store(ArtifactStore):
        """The client deletes the data set just before its canonical form is written."""

        def put_bytes(self, key: str, data: bytes) -> None:
            with process.database.transaction() as tx:
                datasets.delete(tx, project.id, dataset_id)
            super().put_bytes(key, data)

    store = Store(f"file://{tmp_path / 'artifacts'}")
    parse_dataset(WorkerProcess("wrk_test", process.database, process.bus, store), dataset_id)
    with pytest.raises(NotFound):
        status(process, project, dataset_id)
    assert not any(path.is_file() for path in (tmp_path / "artifacts").rglob("*"))


def test_an_unknown_one_is_nobodys_business(process: WorkerProcess) -> None:
    parse_dataset(process, "dst_unknown")


def test_builtins_are_published_once(process: WorkerProcess, project: Project) -> None:
    publish_builtins(process)
    with process.database.transaction() as tx:
        first = {name: datasets.get(tx, project.id, name) for name in BUILTIN_NAMES}
    publish_builtins(process)
    with process.database.transaction() as tx:
        assert {name: datasets.get(tx, project.id, name) for name in BUILTIN_NAMES} == first
    digits = first["digits"]
    assert (digits.rows, digits.features, digits.classes, digits.builtin) == (1797, 64, 10, True)
    assert "tabular" in digits.views
    assert first["diabetes"].task is Task.REGRESSION
