"""The canonical file: what goes in comes out, equal data give equal bytes, and damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset, decode_tokens, load, save, to_bytes

_floats = st.floats(width=32, allow_infinity=False)
_names = st.text(min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> Dataset:
    rows, width = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    X = draw(arrays.arrays(np.float32, (rows, width), elements=_floats))
    kinds = draw(st.lists(st.booleans(), min_size=width, max_size=width))
    columns = tuple(
        Column(draw(_names), "categorical", tuple(draw(st.lists(_names, max_size=3))))
        if categorical
        else Column(draw(_names), offset=draw(st.floats(allow_nan=False, allow_infinity=False)))
        for categorical in kinds
    )
    classifies = draw(st.booleans())
    y = (
        draw(arrays.arrays(np.int64, rows, elements=st.integers(0, 2)))
        if classifies
        else draw(arrays.arrays(np.float32, rows, elements=st.floats(-1e6, 1e6, width=32)))
    )
    return Dataset(
        name=draw(_names),
        task=Task.CLASSIFICATION if classifies else Task.REGRESSION,
        modality="tabular",
        X=X,
        y=y,
        columns=columns,
        target_name=draw(st.none() | _names),
        class_names=("a", "b", "c") if classifies else (),
        warnings=tuple(draw(st.lists(_names, max_size=2))),
    )


def images(rows: int = 6, seed: int = 0, name: str = "images") -> Dataset:
    generator = np.random.default_rng(seed)
    return Dataset(
        name=name,
        task=Task.CLASSIFICATION,
        modality="image",
        X=generator.random((rows, 3, 8, 9), dtype=np.float32),
        y=np.arange(rows) % 2,
        class_names=("cat", "dog"),
    )


def sentence() -> Dataset:
    return Dataset(
        name="sentence",
        task=Task.LANGUAGE_MODELLING,
        modality="text",
        X=np.array([1, 0, 2, 2], np.int32),
        y=np.zeros(0, np.int64),
        vocabulary=("a", "b", "é"),
    )


def assert_same(left: Dataset, right: Dataset) -> None:
    for attribute in (
        "name", "task", "modality", "columns", "target_name", "class_names", "vocabulary", "tokens", "warnings",
    ):  # fmt: skip
        assert getattr(left, attribute) == getattr(right, attribute)
    assert left.X.dtype == right.X.dtype
    assert left.y.dtype == right.y.dtype
    np.testing.assert_array_equal(left.X, right.X)
    np.testing.assert_array_equal(left.y, right.y)
    assert left.content_hash == right.content_hash


@given(tables())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_survives_the_trip_to_disk(tmp_path: Path, dataset: Dataset) -> None:
    save(dataset, tmp_path / "table")
    assert_same(load(tmp_path / "table"), dataset)


@pytest.mark.parametrize("dataset", [images(), sentence()], ids=["image", "text"])
def test_other_modalities_survive_too(tmp_path: Path, dataset: Dataset) -> None:
    save(dataset, tmp_path / "file")
    assert_same(load(tmp_path / "file"), dataset)


def test_equal_data_give_equal_bytes_whatever_their_memory_layout() -> None:
    plain = images()
    fortran = Dataset("images", plain.task, "image", plain.X.copy(order="F"), plain.y, class_names=plain.class_names)
    swapped = Dataset(
        "images",
        plain.task,
        "image",
        plain.X.astype(np.dtype(">f4")),
        plain.y.astype(np.dtype(">i8")),
        class_names=plain.class_names,
    )
    assert to_bytes(plain) == to_bytes(fortran) == to_bytes(swapped)


def test_a_missing_cell_has_one_bit_pattern() -> None:
    def table(nan_bits: int) -> Dataset:
        bits = np.array([[0x3F800000], [nan_bits]], np.uint32)
        y = np.array([0, 1], np.float32)
        return Dataset("t", Task.REGRESSION, "tabular", bits.view(np.float32), y, columns=(Column("x"),))

    assert table(0xFFC00001).content_hash == table(0x7FC00000).content_hash
    assert table(0xFFC00001).content_hash != table(0x7F7FFFFF).content_hash


def test_the_hash_sees_every_value_but_not_the_name() -> None:
    original = images()
    assert images(name="renamed").content_hash == original.content_hash
    changed = original.X.copy()
    changed[-1, -1, -1, -1] += 1
    other_pixel = Dataset("images", original.task, "image", changed, original.y, class_names=original.class_names)
    other_class = Dataset("images", original.task, "image", original.X, original.y, class_names=("cat", "cow"))
    assert len({original.content_hash, other_pixel.content_hash, other_class.content_hash}) == 3


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    content = bytearray(to_bytes(images()))
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidDataset, match="checksum"):
        load(tmp_path / "file")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(to_bytes(images())[:-10])
    with pytest.raises(InvalidDataset, match="not a readable data set"):
        load(tmp_path / "file")


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    save_file({"X": np.zeros(3, np.float32)}, tmp_path / "foreign")
    with pytest.raises(InvalidDataset, match="not a Foretune data set"):
        load(tmp_path / "foreign")
    header = json.dumps({"format": 99})
    save_file({"X": np.zeros(3, np.float32)}, tmp_path / "newer", metadata={"foretune_dataset": header})
    with pytest.raises(InvalidDataset, match="format 99"):
        load(tmp_path / "newer")


def test_saving_leaves_no_other_file_behind(tmp_path: Path) -> None:
    save(images(), tmp_path / "file")
    save(images(seed=1), tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_arrays_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        images().X[0, 0, 0, 0] = 1


def test_the_summary_counts_rows_features_and_classes() -> None:
    assert (images().rows, images().features, images().classes) == (6, 3 * 8 * 9, 2)
    assert (sentence().rows, sentence().features, sentence().classes) == (4, 1, 3)


def test_tokens_become_text_again() -> None:
    assert decode_tokens(sentence(), sentence().X) == "baéé"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((6, 8, 9), np.float32)}, "4 dimensions, not 3"),
        ({"X": np.zeros((6, 3, 8, 9))}, "float64; float32 is expected"),
        ({"X": np.zeros((6, 0, 8, 9), np.float32)}, "X is empty"),
        ({"y": np.zeros(5, np.int64)}, "X has 6 rows and y has shape"),
        ({"y": np.full(6, 2)}, "below the number of class names"),
        ({"y": np.full(6, np.nan, np.float32), "task": Task.REGRESSION}, "finite float32"),
        ({"task": Task.LANGUAGE_MODELLING}, "does not go with modality image"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    good = images()
    parts: dict[str, object] = {
        "name": "images", "task": good.task, "modality": "image", "X": good.X, "y": good.y,
        "class_names": good.class_names,
    }  # fmt: skip
    with pytest.raises(InvalidDataset, match=message):
        Dataset(**(parts | change))  # type: ignore[arg-type]
