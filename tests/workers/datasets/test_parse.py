"""Whatever is uploaded, the answer is a data set or a refusal, never another error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune.errors import InvalidDataset
from workers.datasets.dataset import Dataset
from workers.datasets.parse import parse


def _csv() -> bytes:
    return b'a,"b ""c""",y\n' + b"".join(b"%d,w%d,%d\n" % (i, i % 3, i % 2) for i in range(12))


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, X=np.random.default_rng(0).random((8, 3)), y=np.arange(8) % 2)
    return file.getvalue()


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": range(8), "b": list("abababab"), "y": [0, 1] * 4}), file)
    return file.getvalue()


_GOOD = {"file.csv": _csv(), "file.npz": _npz(), "file.parquet": _parquet()}


def read_or_refuse(path: Path, filename: str) -> Dataset | InvalidDataset:
    try:
        return parse(path, filename)
    except InvalidDataset as refusal:
        return refusal


@pytest.mark.parametrize("filename", _GOOD)
def test_the_samples_are_good(tmp_path: Path, filename: str) -> None:
    (tmp_path / "upload").write_bytes(_GOOD[filename])
    assert parse(tmp_path / "upload", filename).rows in (8, 12)


@pytest.mark.parametrize("filename", _GOOD)
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_harmless(tmp_path: Path, filename: str, data: st.DataObject) -> None:
    # Given a good file in which some bytes were changed, cut off or repeated,
    content = bytearray(_GOOD[filename])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    (tmp_path / "upload").write_bytes(bytes(content[:end]))
    # when it is read, then it is a data set or is refused in words.
    answer = read_or_refuse(tmp_path / "upload", filename)
    assert isinstance(answer, Dataset) or len(answer.message) > 10


@given(content=st.text(alphabet='ab1.,;\t"\n\r -é', max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_called_csv_is_read_or_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "upload").write_bytes(content.encode())
    answer = read_or_refuse(tmp_path / "upload", "file.csv")
    assert answer.code == "invalid_dataset" if isinstance(answer, InvalidDataset) else answer.rows >= 4


def test_the_name_is_the_file_name_unless_another_is_given(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(_GOOD["file.csv"])
    assert parse(tmp_path / "upload", "some/where/sales.2024.csv").name == "sales.2024"
    assert parse(tmp_path / "upload", "sales.csv", name="mine").name == "mine"
