"""NPZ uploads: what shapes mean, and what is never unpickled."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset, Modality
from workers.datasets.limits import DatasetLimits
from workers.datasets.parse import parse

ROWS = 20
Y = np.arange(ROWS) % 2


def read(
    folder: Path,
    task: Task | None = None,
    modality: Modality | None = None,
    limits: DatasetLimits | None = None,
    **arrays: object,
) -> Dataset:
    np.savez(folder / "upload.npz", **arrays)  # type: ignore[arg-type]
    return parse(folder / "upload.npz", "file.npz", task=task, modality=modality, limits=limits)


def numbers(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(0).random((ROWS, *shape))


def test_two_dimensions_are_a_table(tmp_path: Path) -> None:
    X = numbers(3)
    X[0, 1] = np.nan
    X[1, 2] = np.inf
    dataset = read(tmp_path, X=X, y=Y, feature_names=np.array(["a", "b", "c"]))
    assert dataset.columns == (Column("a"), Column("b"), Column("c"))
    assert np.argwhere(np.isnan(dataset.X)).tolist() == [[0, 1], [1, 2]]
    np.testing.assert_array_equal(dataset.X[2], X[2].astype(np.float32))


@pytest.mark.parametrize(
    ("X", "modality", "shape"),
    [
        (numbers(9, 9), "image", (1, 9, 9)),
        (numbers(9, 12), "sequence", (9, 12)),
        (numbers(7, 7), "sequence", (7, 7)),
        (np.zeros((ROWS, 9, 12), np.uint8), "image", (1, 9, 12)),
        (numbers(3, 9, 12), "image", (3, 9, 12)),
        (numbers(9, 12, 3), "image", (3, 9, 12)),
        (numbers(1, 8, 8), "image", (1, 8, 8)),
    ],
    ids=["square", "oblong", "small", "bytes", "NCHW", "NHWC", "one channel"],
)
def test_the_shape_says_what_it_is(
    tmp_path: Path, X: np.ndarray[tuple[int, ...], np.dtype[np.generic]], modality: str, shape: tuple[int, ...]
) -> None:
    dataset = read(tmp_path, X=X, y=Y)
    assert (dataset.modality, dataset.X.shape) == (modality, (ROWS, *shape))


def test_kind_and_modality_decide_otherwise(tmp_path: Path) -> None:
    X = numbers(9, 9)
    assert read(tmp_path, X=X, y=Y, kind="sequence").modality == "sequence"
    assert read(tmp_path, X=X, y=Y, kind="sequence", modality="image").modality == "image"
    assert read(tmp_path, X=X, y=Y, kind="tabular").X.shape == (ROWS, 81)


def test_channels_last_keeps_every_pixel_in_place(tmp_path: Path) -> None:
    X = numbers(8, 10, 3)
    dataset = read(tmp_path, X=X, y=Y)
    assert dataset.X[4, 2, 5, 7] == np.float32(X[4, 5, 7, 2])


def test_byte_pixels_go_from_zero_to_one(tmp_path: Path) -> None:
    X = np.zeros((ROWS, 8, 8), np.uint8)
    X[0, 0, 0] = 255
    dataset = read(tmp_path, X=X, y=Y)
    assert (dataset.X.min(), dataset.X.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("y", "task", "class_names", "first"),
    [
        (Y, Task.CLASSIFICATION, ("0", "1"), [0, 1]),
        (Y[:, None], Task.CLASSIFICATION, ("0", "1"), [0, 1]),
        (Y == 1, Task.CLASSIFICATION, ("false", "true"), [0, 1]),
        (np.eye(2)[Y], Task.CLASSIFICATION, ("0", "1"), [0, 1]),
        (np.where(Y, "ten", "nine"), Task.CLASSIFICATION, ("nine", "ten"), [0, 1]),
        (np.where(Y, b"ten", b"nine"), Task.CLASSIFICATION, ("nine", "ten"), [0, 1]),
        (Y - 0.5, Task.REGRESSION, (), [-0.5, 0.5]),
    ],
    ids=["ids", "column", "booleans", "one-hot", "texts", "bytes", "fractions"],
)
def test_targets_in_every_form(
    tmp_path: Path,
    y: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    task: Task,
    class_names: tuple[str, ...],
    first: list[float],
) -> None:
    dataset = read(tmp_path, X=numbers(3), y=y)
    assert (dataset.task, dataset.class_names, dataset.y[:2].tolist()) == (task, class_names, first)


def test_many_whole_ids_from_zero_are_classes(tmp_path: Path) -> None:
    y = np.arange(500) % 100
    X = np.random.default_rng(0).random((500, 2))
    assert read(tmp_path, X=X, y=y).task is Task.CLASSIFICATION
    assert read(tmp_path, X=X, y=y + 1000).task is Task.REGRESSION


def test_class_names_name_the_ids(tmp_path: Path) -> None:
    assert read(tmp_path, X=numbers(3), y=Y, class_names=np.array(["cat", "dog"])).class_names == ("cat", "dog")
    with pytest.raises(InvalidDataset, match="class_names has 3 entries"):
        read(tmp_path, X=numbers(3), y=Y, class_names=np.array(["cat", "dog", "cow"]))


def test_useless_columns_and_spare_arrays_are_mentioned(tmp_path: Path) -> None:
    X = numbers(4)
    X[:, 1] = 5
    X[:, 3] = np.nan
    dataset = read(tmp_path, X=X, y=Y, extra=np.zeros(3))
    assert dataset.feature_names == ("x0", "x2")
    assert any("2 constant or all-missing column(s) were dropped: 'x1', 'x3'" in note for note in dataset.warnings)
    assert any("'extra'" in note for note in dataset.warnings)


BAD_PIXEL = numbers(8, 8)
BAD_PIXEL[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": numbers(3).astype(object), "y": Y}, r"array 'X' holds Python objects .* never unpickled"),
        ({"X": numbers(3), "y": Y.astype(object)}, "array 'y' holds Python objects"),
        ({"x_train": numbers(3), "y_train": Y}, "'x_train', 'y_train'; arrays 'X' and 'y' are expected"),
        ({"X": numbers(), "y": Y}, "X has 1 dimensions"),
        ({"X": numbers(2, 2, 2, 2), "y": Y}, "X has 5 dimensions"),
        ({"X": numbers(20, 20, 20), "y": Y}, "neither .* 1 to 4 channels"),
        ({"X": numbers(3) + 1j, "y": Y}, "array 'X' has dtype complex128; numbers or booleans"),
        ({"X": np.full((ROWS, 2), "a"), "y": Y}, "array 'X' has dtype <U1"),
        ({"X": numbers(3), "y": Y[:-1]}, "X has 20 rows and y has 19"),
        ({"X": numbers(3), "y": np.ones((ROWS, 3))}, r"y has shape \(20, 3\)"),
        ({"X": numbers(3), "y": np.where(Y, np.nan, 1.0)}, "target 'y' is missing"),
        ({"X": numbers(3), "y": np.ones(ROWS, bool)}, "target 'y' is constant"),
        ({"X": BAD_PIXEL, "y": Y}, "NaN or infinity in 1 pixels .*row 4"),
        ({"X": numbers(3) * np.nan, "y": Y}, "no finite number"),
        ({"X": np.ones((ROWS, 3)), "y": Y}, "every column of X is constant"),
        ({"X": numbers(3), "y": Y, "kind": "sound"}, "array 'kind' holds 'sound'"),
        ({"X": numbers(3), "y": Y, "kind": "image"}, "cannot be of kind 'image'"),
        ({"X": numbers(5, 5), "y": Y, "kind": "image"}, "5 x 5 pixels are too small"),
        ({"X": numbers(3)[:1], "y": Y[:1]}, "only one data row"),
        ({"X": np.zeros((ROWS, 0)), "y": Y}, "array 'X' is empty"),
        ({"X": np.array(1.0), "y": Y}, "array 'X' is a single number"),
        ({"X": numbers(3), "y": Y, "feature_names": np.array(["a"])}, "feature_names has 1 entries; 3"),
    ],
)
def test_what_is_wrong_is_said_precisely(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read(tmp_path, **arrays)  # type: ignore[arg-type]


def test_an_object_array_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (marker,))

    trap = np.empty(ROWS, dtype=object)
    trap[:] = [Trap() for _ in range(ROWS)]
    with pytest.raises(InvalidDataset, match="never unpickled"):
        read(tmp_path, X=trap, y=Y)
    assert not marker.exists()


def header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_members(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def good_y() -> bytes:
    file = io.BytesIO()
    np.save(file, Y)
    return file.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    # Given 80 MB of zeros in 80 kB, declared as 20 x 500,000 numbers where 1,000,000 are allowed.
    bomb = header((ROWS, 500_000)) + bytes(8 * ROWS * 500_000)
    write_members(tmp_path / "upload", {"X.npy": bomb, "y.npy": good_y()})
    with pytest.raises(InvalidDataset, match="10,000,000 cells; at most 1,000,000"):
        parse(tmp_path / "upload", "file.npz", limits=DatasetLimits(cells=1_000_000))
    # And when the header is honest about a small array, but zeros follow it.
    write_members(tmp_path / "upload", {"X.npy": header((ROWS, 3)) + bytes(10_000_000), "y.npy": good_y()})
    with pytest.raises(InvalidDataset, match="unpacks to 10,0"):
        parse(tmp_path / "upload", "file.npz", limits=DatasetLimits(cells=1_000_000))


@pytest.mark.parametrize("shape", [(ROWS, 3), (2**40, 2**30), (2**63, 2), (-1, 3)])
def test_a_header_that_promises_more_than_follows_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_members(tmp_path / "upload", {"X.npy": header(shape) + bytes(8), "y.npy": good_y()})
    with pytest.raises(InvalidDataset, match="shorter than its header says"):
        parse(tmp_path / "upload", "file.npz")


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    write_members(tmp_path / "upload", {"X.npy": b"no header", "y.npy": good_y()})
    with pytest.raises(InvalidDataset, match=r"array 'X' is not in the \.npy format"):
        parse(tmp_path / "upload", "file.npz")
    (tmp_path / "upload").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(InvalidDataset, match="cannot be read as NPZ"):
        parse(tmp_path / "upload", "file.npz")
    write_members(tmp_path / "upload", {"xl/workbook.xml": b"<x/>"})
    with pytest.raises(InvalidDataset, match="Office document"):
        parse(tmp_path / "upload", "file.xlsx")


def test_a_target_column_cannot_be_chosen(tmp_path: Path) -> None:
    np.savez(tmp_path / "upload.npz", X=numbers(3), y=Y)
    with pytest.raises(InvalidDataset, match="its array 'y' is the target"):
        parse(tmp_path / "upload.npz", "file.npz", target="price")
