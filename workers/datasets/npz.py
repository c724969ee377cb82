"""NPZ: arrays `X` and `y`, and what their shapes mean. Nothing is ever unpickled.

    X (N, F)        a table of numbers
    X (N, A, B)     sequences (N, T, F), unless the array is of type uint8 or A == B, and both are at least 8:
                    then grey images (N, H, W)
    X (N, A, B, D)  images; the axis of length 1 … 4 holds the channels (N, C, H, W or N, H, W, C)

An optional array `kind` holding "tabular", "image" or "sequence" decides instead. `feature_names` and `class_names`
are optional too. Images of type uint8 are divided by 255. NaN is a missing value in tables and sequences (infinity
counts as missing) and refused in images and in y. y is (N,), (N, 1), or one-hot (N, K).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.columns import CategoryColumn, NumberColumn, sorted_labels
from workers.datasets.dataset import Column, Dataset, Modality
from workers.datasets.limits import MIN_IMAGE_SIDE, DatasetLimits, check_enough_rows
from workers.datasets.targets import Target, numbers_from, read_target

_MAX_CHANNELS = 4
_MAX_ITEM_BYTES = 8
_LABELS = ("kind", "feature_names", "class_names")
_MAX_LABEL_BYTES = 2**22

Array = NDArray[np.generic]


def parse_npz(path: Path, *, name: str, task: Task | None, modality: Modality | None, limits: DatasetLimits) -> Dataset:
    """A data set from an NPZ file; `modality` goes before the file's own `kind`. Raises InvalidDataset.

    Every size is checked in the zip directory and the array headers before an array is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            X = _read_array(archive, members["X"], "X", limits)
            y = _read_array(archive, members["y"], "y", limits)
            labels = {label: _read_labels(archive, members[label], label) for label in _LABELS if label in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise InvalidDataset(f"the file cannot be read as NPZ: {error}") from error
    ignored = sorted(set(members) - {"X", "y", *_LABELS})
    notes = (f"arrays {', '.join(map(repr, ignored))} were ignored",) if ignored else ()
    kind = _choose_kind(X, modality or _stated_kind(labels.get("kind")))
    target = _target(y, len(X), task, labels.get("class_names"))
    values, more = _values(X, kind)
    limits.check_table(len(values), values.shape[1] if kind == "tabular" else 1)
    columns: tuple[Column, ...] = ()
    if kind == "tabular":
        values, columns, dropped = _tidy_table(values, labels.get("feature_names"))
        more += dropped
    return Dataset(
        name=name,
        task=target.task,
        modality=kind,
        X=values,
        y=target.y,
        columns=columns,
        target_name="y",
        class_names=target.class_names,
        warnings=(*notes, *more, *target.notes),
    )


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename.startswith(("xl/", "word/", "[Content_Types]")):
            raise InvalidDataset("this is an Office document, not NPZ; export the sheet as CSV (UTF-8)")
        if info.filename.endswith(".npy"):
            key = info.filename.removesuffix(".npy")
            if key in members:
                raise InvalidDataset(f"array {key!r} is in the file twice")
            if info.flag_bits & 1:
                raise InvalidDataset(f"array {key!r} is encrypted")
            members[key] = info
    if not {"X", "y"} <= set(members):
        found = ", ".join(map(repr, sorted(members)[:10])) or "no arrays"
        raise InvalidDataset(
            f"the file has {found}; arrays 'X' and 'y' are expected (numpy.savez(file, X=…, y=…)), "
            "training and test rows together"
        )
    return members


@contextmanager
def _open_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[np.generic]]]:
    """The opened member and the shape and type that its header declares."""
    with archive.open(info) as member:
        try:
            version = npy.read_magic(member)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(member)
        except ValueError as error:
            raise InvalidDataset(f"array {key!r} is not in the .npy format: {error}") from error
        if dtype.hasobject:
            raise InvalidDataset(
                f"array {key!r} holds Python objects (dtype object), which are never unpickled; "
                "convert it to numbers, for example X.astype('float32')"
            )
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(length < 0 for length in shape) or needed > info.file_size:
            raise InvalidDataset(f"array {key!r} is shorter than its header says; the file was damaged")
        yield member, shape, dtype


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str, limits: DatasetLimits) -> Array:
    with _open_array(archive, info, key) as (_, shape, dtype):
        allowed = "biufUS" if key == "y" else "biuf"
        if dtype.kind not in allowed or dtype.names is not None:
            raise InvalidDataset(
                f"array {key!r} has dtype {dtype}; "
                + ("numbers, booleans or texts" if key == "y" else "numbers or booleans")
                + " are expected"
            )
        limits.check_cells(int(np.prod(shape, dtype=object)))
        if info.file_size > limits.cells * max(_MAX_ITEM_BYTES, dtype.itemsize if key == "y" else 0):
            raise InvalidDataset(f"array {key!r} unpacks to {info.file_size:,} bytes; that is too much")
        if len(shape) == 0:
            raise InvalidDataset(f"array {key!r} is a single number; it needs one entry a row")
        check_enough_rows(shape[0])
        if shape[0] > limits.rows:
            raise InvalidDataset(f"array {key!r} has {shape[0]:,} rows; at most {limits.rows:,} are allowed")
        if 0 in shape:
            raise InvalidDataset(f"array {key!r} is empty: shape {shape}")
    with archive.open(info) as member:
        return np.asarray(npy.read_array(member, allow_pickle=False))


def _read_labels(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str) -> tuple[str, ...]:
    with _open_array(archive, info, key) as (_, shape, dtype):
        if dtype.kind not in "US" or len(shape) > 1 or info.file_size > _MAX_LABEL_BYTES:
            raise InvalidDataset(f"array {key!r} must be a short array of texts, not {dtype} of shape {shape}")
    with archive.open(info) as member:
        return _texts(np.atleast_1d(npy.read_array(member, allow_pickle=False)), key)


def _texts(array: Array, key: str) -> tuple[str, ...]:
    try:
        return tuple(np.asarray(array, dtype=np.str_).tolist())
    except UnicodeDecodeError as error:
        raise InvalidDataset(f"array {key!r} holds bytes that are not ASCII; store it as text (dtype U)") from error


def _stated_kind(kind: tuple[str, ...] | None) -> Modality | None:
    if kind is None:
        return None
    stated: Literal["tabular", "image", "sequence"]
    for stated in ("tabular", "image", "sequence"):
        if kind == (stated,):
            return stated
    raise InvalidDataset(f"array 'kind' holds {', '.join(kind)!r}; 'tabular', 'image' or 'sequence' is expected")


def _choose_kind(X: Array, stated: Modality | None) -> Modality:
    allowed: dict[int, tuple[Modality, ...]] = {
        2: ("tabular",), 3: ("sequence", "image", "tabular"), 4: ("image", "tabular"),
    }  # fmt: skip
    if X.ndim not in allowed:
        raise InvalidDataset(
            f"X has {X.ndim} dimensions (shape {X.shape}); 2 (rows, features), 3 (rows, steps, features) "
            "or 4 (rows, channels, height, width) are expected"
        )
    if stated is not None:
        if stated not in allowed[X.ndim]:
            raise InvalidDataset(f"X of shape {X.shape} cannot be of kind {stated!r}")
        return stated
    if X.ndim == 3:
        large = min(X.shape[1:]) >= MIN_IMAGE_SIDE
        return "image" if large and (X.dtype == np.uint8 or X.shape[1] == X.shape[2]) else "sequence"
    return allowed[X.ndim][0]


def _values(X: Array, kind: Modality) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """X as float32 in the canonical layout of `kind`, with a remark on what was changed."""
    notes: tuple[str, ...] = ()
    byte_image = kind == "image" and X.dtype == np.uint8
    if kind == "image":
        X = _channels_first(X)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is dealt with below
        values = X.astype(np.float32)
    if byte_image:
        values /= 255.0
        notes = ("pixels of type uint8 were divided by 255",)
    finite = np.isfinite(values)
    if not finite.all():
        if kind == "image":
            row = int(np.argwhere(~finite)[0][0])
            raise InvalidDataset(
                f"X holds NaN or infinity in {int((~finite).sum()):,} pixels (first in row {row + 1}); "
                "images cannot have missing values"
            )
        infinite = int(np.isinf(values).sum())
        if infinite:
            values = np.where(finite, values, np.float32(np.nan))
            notes = (*notes, f"{infinite:,} infinite or too large value(s) were read as missing")
        if not finite.any():
            raise InvalidDataset("X holds no finite number at all")
    return (values.reshape(len(values), -1) if kind == "tabular" else values), notes


def _channels_first(X: Array) -> Array:
    if X.ndim == 3:
        X = X[:, None]
    else:
        first = X.shape[1] <= _MAX_CHANNELS and min(X.shape[2:]) >= MIN_IMAGE_SIDE
        last = X.shape[3] <= _MAX_CHANNELS and min(X.shape[1:3]) >= MIN_IMAGE_SIDE
        if not first and not last:
            raise InvalidDataset(
                f"X of shape {X.shape} is neither (rows, channels, height, width) nor (rows, height, width, "
                f"channels) with 1 to {_MAX_CHANNELS} channels and sides of at least {MIN_IMAGE_SIDE} pixels"
            )
        if not first:
            X = np.moveaxis(X, 3, 1)
    if min(X.shape[2:]) < MIN_IMAGE_SIDE:
        raise InvalidDataset(
            f"images of {X.shape[2]} x {X.shape[3]} pixels are too small; "
            f"each side needs at least {MIN_IMAGE_SIDE} (kind 'tabular' or 'sequence' takes any size)"
        )
    return X


def _target(y: Array, rows: int, task: Task | None, class_names: tuple[str, ...] | None) -> Target:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf" and bool(((y == 0) | (y == 1)).all()) and bool((y.sum(1) == 1).all()):
        y = y.argmax(axis=1)
    if y.ndim != 1:
        raise InvalidDataset(f"y has shape {y.shape}; (rows,) or one-hot (rows, classes) is expected")
    if len(y) != rows:
        raise InvalidDataset(f"X has {rows:,} rows and y has {len(y):,}; they must be equal")
    column: NumberColumn | CategoryColumn
    if y.dtype.kind in "US":
        distinct, codes = np.unique(np.array(_texts(y, "y")), return_inverse=True)
        labels = sorted_labels(distinct.tolist())
        position = {label: code for code, label in enumerate(labels)}
        column = CategoryColumn(np.array([position[label] for label in distinct.tolist()])[codes], tuple(labels))
    elif y.dtype.kind == "b":
        column = CategoryColumn(y.astype(np.int64), ("false", "true"))
        if not y.any() or y.all():
            column = NumberColumn(y.astype(np.float64))  # constant, and refused as such
    else:
        column = numbers_from(y)
    target = read_target(column, "y", task, class_ids=y.dtype.kind in "iu")
    if class_names is None or target.task is not Task.CLASSIFICATION:
        return target
    if target.class_names != tuple(str(number) for number in range(len(class_names))):
        raise InvalidDataset(
            f"class_names has {len(class_names)} entries, so y must hold each of 0 … {len(class_names) - 1}; "
            f"it holds {', '.join(target.class_names[:10])}"
        )
    return Target(target.task, target.y, class_names, target.notes)


def _tidy_table(
    values: NDArray[np.float32], names: tuple[str, ...] | None
) -> tuple[NDArray[np.float32], tuple[Column, ...], tuple[str, ...]]:
    """Names the columns and drops those that say nothing: all missing, or one value everywhere."""
    width = values.shape[1]
    if names is None:
        names = tuple(f"x{position}" for position in range(width))
    if len(names) != width or len(set(names)) != width:
        raise InvalidDataset(f"feature_names has {len(names)} entries; {width} different ones are expected")
    missing = np.isnan(values)
    constant = ~missing.any(axis=0) & (values == values[0]).all(axis=0)
    useless = missing.all(axis=0) | constant
    if useless.all():
        raise InvalidDataset("no usable feature is left: every column of X is constant or missing")
    columns = tuple(Column(name) for name, dropped in zip(names, useless, strict=True) if not dropped)
    if not useless.any():
        return values, columns, ()
    listed = [name for name, dropped in zip(names, useless, strict=True) if dropped]
    shown = ", ".join(map(repr, listed[:10])) + (", …" if len(listed) > 10 else "")
    return values[:, ~useless], columns, (f"{len(listed)} constant or all-missing column(s) were dropped: {shown}",)
