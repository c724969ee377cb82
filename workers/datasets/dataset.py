"""A data set as arrays, and its canonical file.

Axes: N rows, F features, C channels, H height, W width, T steps.

    modality   X                          y
    tabular    (N, F) float32             (N,) int64 class ids, or float32 in original units
    image      (N, C, H, W) float32       as above
    sequence   (N, T, F) float32          as above
    text       (N,) int32 token ids       (0,) int64: the text is its own target

A table keeps what kind each column is. Numeric cells are `value - offset`, NaN where missing; categorical cells
are the position in `categories`, NaN where missing. Nothing is imputed, scaled or one-hot encoded here: that is
fitted on the training part alone, in `prepare.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as encode_safetensors

from foretune.errors import InvalidDataset
from foretune.json_types import JsonObject
from foretune.wire.datasets import Task

Modality: TypeAlias = Literal["tabular", "image", "sequence", "text"]
MODALITIES: tuple[Modality, ...] = ("tabular", "image", "sequence", "text")

Values: TypeAlias = NDArray[np.float32] | NDArray[np.int32]
Targets: TypeAlias = NDArray[np.float32] | NDArray[np.int64]

FORMAT_VERSION = 1
_HEADER_KEY = "foretune_dataset"
_DIMENSIONS: dict[Modality, int] = {"tabular": 2, "image": 4, "sequence": 3, "text": 1}
_CANONICAL_NAN = np.float32(np.nan)


@dataclass(frozen=True)
class Column:
    """One feature column of a table.

    `offset` was subtracted from a numeric column whose distinct values float32 could not tell apart (a Unix time,
    say); it is 0 otherwise.
    """

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    categories: tuple[str, ...] = ()
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set in memory; see the module docstring for shapes. Its arrays are read-only.

    `columns` describes tables, `class_names` classification targets (by class id), `vocabulary` texts (by token
    id). With `tokens == "bytes"` a vocabulary entry is the character whose code is the byte. `warnings` says in
    plain words what was dropped or guessed. Raises InvalidDataset when the parts do not fit together.
    """

    name: str
    task: Task
    modality: Modality
    X: Values
    y: Targets
    columns: tuple[Column, ...] = ()
    target_name: str | None = None
    class_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    tokens: Literal["characters", "bytes"] = "characters"
    warnings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", _frozen_array(self.X))
        object.__setattr__(self, "y", _frozen_array(self.y))
        problem = _first_problem(self)
        if problem is not None:
            raise InvalidDataset(f"data set {self.name!r}: {problem}")

    @property
    def rows(self) -> int:
        """N; for a text the number of tokens."""
        return int(self.X.shape[0])

    @property
    def features(self) -> int:
        """How many numbers describe one row; 1 for a text."""
        return int(np.prod(self.X.shape[1:], dtype=np.int64))

    @property
    def classes(self) -> int | None:
        """How many classes; for a text the size of its vocabulary; None for regression."""
        if self.task is Task.REGRESSION:
            return None
        return len(self.vocabulary) if self.modality == "text" else len(self.class_names)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of a table's columns; empty for other modalities."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over everything that training sees: the same for the same data on every platform.

        The name and the warnings are labels and do not count.
        """
        digest = hashlib.sha256(_header_text(self, with_labels=False).encode())
        digest.update(self.X.data.cast("B") if self.X.size else b"")
        digest.update(self.y.data.cast("B") if self.y.size else b"")
        return digest.hexdigest()


def decode_tokens(dataset: Dataset, ids: NDArray[np.generic]) -> str:
    """The text that token ids (any shape, read in order) stand for."""
    text = "".join(dataset.vocabulary[token] for token in np.ravel(ids).tolist())
    return text if dataset.tokens == "characters" else text.encode("latin-1").decode("utf-8", "replace")


def to_bytes(dataset: Dataset) -> bytes:
    """The canonical file: safetensors arrays with one JSON header. Equal data sets give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {"X": dataset.X}
    if dataset.y.size:
        arrays["y"] = dataset.y
    return encode_safetensors(arrays, metadata={_HEADER_KEY: _header_text(dataset, with_labels=True)})


def save(dataset: Dataset, path: Path | str) -> None:
    """Writes the canonical file; a reader sees the old file or the whole new one, never a part."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(to_bytes(dataset))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path | str) -> Dataset:
    """Reads a canonical file. Raises InvalidDataset when it is not one or was damaged; OSError when unreadable."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if _HEADER_KEY not in metadata:
                raise InvalidDataset(f"{path}: a safetensors file, but not a Foretune data set")
            header: JsonObject = json.loads(metadata[_HEADER_KEY])
            X = file.get_tensor("X")
            y = file.get_tensor("y") if "y" in file.keys() else np.zeros(0, np.int64)  # noqa: SIM118
        if header.get("format") != FORMAT_VERSION:
            raise InvalidDataset(
                f"{path}: written in format {header.get('format')!r}; this version reads {FORMAT_VERSION}"
            )
        dataset = _from_header(header, X, y)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InvalidDataset(f"{path}: not a readable data set file ({error})") from error
    if dataset.content_hash != header.get("sha256"):
        raise InvalidDataset(f"{path}: the content does not match its checksum; the file was damaged")
    return dataset


def _from_header(header: JsonObject, X: Values, y: Targets) -> Dataset:
    columns = header["columns"]
    if not isinstance(columns, list):
        raise TypeError("columns is not a list")
    return Dataset(
        name=str(header["name"]),
        task=Task(str(header["task"])),
        modality=next(known for known in MODALITIES if known == header["modality"]),
        X=X,
        y=y,
        columns=tuple(_column_from(entry) for entry in columns),
        target_name=None if header["target_name"] is None else str(header["target_name"]),
        class_names=_strings(header["class_names"]),
        vocabulary=_strings(header["vocabulary"]),
        tokens="bytes" if header["tokens"] == "bytes" else "characters",
        warnings=_strings(header["warnings"]),
    )


def _column_from(entry: object) -> Column:
    if not isinstance(entry, dict):
        raise TypeError("a column is not an object")
    return Column(
        name=str(entry["name"]),
        kind="categorical" if entry["kind"] == "categorical" else "numeric",
        categories=_strings(entry["categories"]),
        offset=float(entry["offset"]),
    )


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("expected a list of texts")
    return tuple(str(entry) for entry in value)


def _header_text(dataset: Dataset, *, with_labels: bool) -> str:
    header: dict[str, object] = {
        "format": FORMAT_VERSION,
        "task": dataset.task.value,
        "modality": dataset.modality,
        "shape": list(dataset.X.shape),
        "columns": [asdict(column) for column in dataset.columns],
        "target_name": dataset.target_name,
        "class_names": dataset.class_names,
        "vocabulary": dataset.vocabulary,
        "tokens": dataset.tokens,
    }
    if with_labels:
        header |= {"name": dataset.name, "warnings": dataset.warnings, "sha256": dataset.content_hash}
    # ASCII only: lone surrogates and odd code points survive the trip, and the bytes depend on no locale.
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _frozen_array(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """C-ordered, native-endian and read-only, with one bit pattern for NaN, so that equal data have equal bytes."""
    result = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if result.dtype == np.float32:
        missing = np.isnan(result)
        if missing.any() and (result.view(np.uint32)[missing] != _CANONICAL_NAN.view(np.uint32)).any():
            result = np.where(missing, _CANONICAL_NAN, result)
    result = result.view()
    result.flags.writeable = False
    return result


def _first_problem(dataset: Dataset) -> str | None:
    X, y = dataset.X, dataset.y
    text = dataset.modality == "text"
    if text != (dataset.task is Task.LANGUAGE_MODELLING):
        return f"task {dataset.task} does not go with modality {dataset.modality}"
    if X.ndim != _DIMENSIONS[dataset.modality]:
        return f"a {dataset.modality} X has {_DIMENSIONS[dataset.modality]} dimensions, not {X.ndim}"
    if X.dtype != (np.int32 if text else np.float32):
        return f"X is {X.dtype}; {'int32' if text else 'float32'} is expected"
    if 0 in X.shape:
        return f"X is empty: shape {X.shape}"
    if text:
        if y.size:
            return "a text has no separate y"
        return None if X.min() >= 0 and X.max() < len(dataset.vocabulary) else "a token id has no vocabulary"
    if y.shape != (X.shape[0],):
        return f"X has {X.shape[0]} rows and y has shape {y.shape}"
    if dataset.modality == "tabular" and len(dataset.columns) != X.shape[1]:
        return f"X has {X.shape[1]} columns and {len(dataset.columns)} are described"
    if dataset.task is Task.REGRESSION:
        return None if y.dtype == np.float32 and bool(np.isfinite(y).all()) else "y must be finite float32"
    if y.dtype != np.int64 or y.min() < 0 or y.max() >= len(dataset.class_names):
        return "y must be int64 class ids below the number of class names"
    return None
