"""Texts: characters as tokens, bytes where there are too many of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Dataset, decode_tokens
from workers.datasets.parse import parse


def read(folder: Path, content: bytes, filename: str = "book.txt", task: Task | None = None) -> Dataset:
    (folder / "upload").write_bytes(content)
    return parse(folder / "upload", filename, task=task)


def test_characters_are_tokens_and_line_ends_are_one(tmp_path: Path) -> None:
    dataset = read(tmp_path, "a\r\nb\ré\n".encode() * 250)
    assert dataset.vocabulary == ("\n", "a", "b", "é")
    assert dataset.X[:6].tolist() == [1, 0, 2, 0, 3, 0]
    assert (dataset.task, dataset.modality, dataset.name) == (Task.LANGUAGE_MODELLING, "text", "book")


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\ufeff")))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(tmp_path: Path, piece: str) -> None:
    text = "start " + piece * (1000 // len(piece) + 1)
    dataset = read(tmp_path, text.encode())
    assert decode_tokens(dataset, dataset.X) == text


def test_too_many_characters_become_bytes(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(1200))
    dataset = read(tmp_path, text.encode())
    assert dataset.tokens == "bytes"
    assert len(dataset.vocabulary) <= 256
    assert dataset.rows == 3600
    assert decode_tokens(dataset, dataset.X) == text
    assert "1,200 distinct characters" in dataset.warnings[0]


def test_the_task_makes_a_table_a_text(tmp_path: Path) -> None:
    dataset = read(tmp_path, b"a,b\n1,2\n" * 200, filename="file.csv", task=Task.LANGUAGE_MODELLING)
    assert dataset.modality == "text"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "5 characters; at least 1,000"),
        (b"x" * 2000, "repeats one character"),
        (b"fine " * 400 + b"\xc3(", r"byte 0xc3 at offset 2,000 \(line 1\)"),
        (b"fine\n" * 400 + b"\x00", "line 401 holds a zero byte"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path, content)


def test_ids_are_int32(tmp_path: Path) -> None:
    assert read(tmp_path, b"ab" * 600).X.dtype == np.int32
