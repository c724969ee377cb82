"""From an uploaded file to a data set. The content says what a file is; its name only breaks ties."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Literal

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.csv import parse_csv
from workers.datasets.dataset import Dataset, Modality
from workers.datasets.limits import DatasetLimits
from workers.datasets.npz import parse_npz
from workers.datasets.parquet import parse_parquet
from workers.datasets.text import parse_text

Format = Literal["csv", "parquet", "npz", "text"]

_SIGNATURES: tuple[tuple[bytes, Format], ...] = ((b"PAR1", "parquet"), (b"PK\x03\x04", "npz"), (b"PK\x05\x06", "npz"))
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "a single .npy array; save X and y together with numpy.savez(file, X=…, y=…)"),
    (b"\x1f\x8b", "a gzip archive; upload the file inside it"),
    (b"BZh", "a bzip2 archive; upload the file inside it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; upload the file inside it"),
    (b"\x80\x02", "a Python pickle, which is never loaded; save as CSV, Parquet or NPZ"),
    (b"\x80\x03", "a Python pickle, which is never loaded; save as CSV, Parquet or NPZ"),
    (b"\x80\x04", "a Python pickle, which is never loaded; save as CSV, Parquet or NPZ"),
    (b"\x80\x05", "a Python pickle, which is never loaded; save as CSV, Parquet or NPZ"),
    (b"\x89HDF", "an HDF5 file; save as CSV, Parquet or NPZ"),
    (b"ARROW1", "an Arrow file; save as Parquet"),
    (b"\xd0\xcf\x11\xe0", "an old Office document; export the sheet as CSV (UTF-8)"),
    (b"%PDF", "a PDF document; export the data as CSV"),
)
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}


def parse(
    path: Path | str,
    filename: str,
    *,
    target: str | None = None,
    task: Task | None = None,
    modality: Modality | None = None,
    name: str | None = None,
    limits: DatasetLimits | None = None,
) -> Dataset:
    """Reads the upload at `path`, which the client called `filename`, as a data set called `name`.

    `target` names the target column of CSV and Parquet (the last one if None); `task` is guessed if None;
    `modality` decides between images, sequences and tables for NPZ. Raises InvalidDataset saying what is wrong,
    where, and what would be right; OSError when the file cannot be opened.
    """
    source = Path(path)
    limits = limits or DatasetLimits()
    limits.check_size(source.stat().st_size)
    with source.open("rb") as file:
        form = _format(file.read(16), filename, target, task)
    chosen = name or PurePath(filename).stem or "dataset"
    if form in ("parquet", "npz") and task is Task.LANGUAGE_MODELLING:
        raise InvalidDataset(f"task language-modelling needs a UTF-8 text file; {filename!r} is {form}")
    _check_modality(form, filename, modality)
    if form == "parquet":
        return parse_parquet(source, name=chosen, target=target, task=task, limits=limits)
    if form == "npz":
        if target not in (None, "y"):
            raise InvalidDataset(f"target {target!r} does not apply to NPZ: its array 'y' is the target")
        return parse_npz(source, name=chosen, task=task, modality=modality, limits=limits)
    content = source.read_bytes()
    if form == "text":
        return parse_text(content, name=chosen, limits=limits)
    return parse_csv(content, name=chosen, target=target, task=task, limits=limits)


def _format(start: bytes, filename: str, target: str | None, task: Task | None) -> Format:
    for signature, form in _SIGNATURES:
        if start.startswith(signature):
            return form
    for signature, what in _REFUSED:
        if start.startswith(signature):
            raise InvalidDataset(f"{filename!r} is {what}")
    suffix = PurePath(filename).suffix.lower()
    if suffix in (".parquet", ".pq", ".npz"):
        raise InvalidDataset(f"{filename!r} is not a {suffix[1:]} file: its first bytes are {start[:4].hex(' ')}")
    if task is Task.LANGUAGE_MODELLING:
        return "text"
    if target is not None or task is not None:
        return "csv"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    raise InvalidDataset(
        f"cannot tell what {filename!r} is: name it .csv, .tsv, .parquet, .npz or .txt, or give task or target"
    )


def _check_modality(form: Format, filename: str, modality: Modality | None) -> None:
    fits: dict[Format, tuple[Modality, ...]] = {
        "csv": ("tabular",),
        "parquet": ("tabular",),
        "npz": ("tabular", "image", "sequence"),
        "text": ("text",),
    }
    if modality is not None and modality not in fits[form]:
        raise InvalidDataset(f"modality {modality!r} does not fit {filename!r} ({form}): {', '.join(fits[form])} would")
