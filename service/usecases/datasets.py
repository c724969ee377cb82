"""Data sets: upload, read, delete; and what the worker that parses a file tells about it.

    PARSING → READY | FAILED        a failed one is hidden from lists and names, and makes room for the next try

Files: `upload_key` is what the client sent, deleted once it is parsed; `parsed_key` is the canonical form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from foretune.errors import Conflict, FieldError, Forbidden, InvalidRequest, NotFound
from foretune.ids import new_id
from foretune.wire.base import Page
from foretune.wire.datasets import Dataset, DatasetFault, DatasetState, PendingDataset, Task
from service.bus import Bus
from service.bus.tasks import send
from service.db import datasets as dataset_rows
from service.db.datasets import StoredDataset
from service.db.session import Transaction
from service.usecases.paging import read_moment, write_cursor

_FAILED_KEPT = timedelta(hours=1)
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Upload:
    """A file that lies in the artifact store under `upload_key(dataset_id)`, and what the client said about it."""

    dataset_id: str
    name: str
    filename: str
    target: str | None
    task: Task | None
    sha256: str
    size_bytes: int

    @property
    def content_key(self) -> str:
        """The same for the same file read in the same way."""
        parts = (self.sha256, self.target or "", self.task or "")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """What the worker needs to parse an upload."""

    dataset_id: str
    name: str
    filename: str
    target: str | None
    task: Task | None
    upload: str
    """Key of the file in the artifact store."""
    parsed: str
    """Key under which the canonical form belongs."""


@dataclass(frozen=True)
class ParsedDataset:
    """What a parser found out. `artifact` is the key of the canonical form, already written."""

    artifact: str
    task: Task
    modality: str
    views: Sequence[str]
    rows: int
    features: int
    classes: int | None
    target: str | None
    meta_features: Mapping[str, float | str]
    warnings: Sequence[str] = ()


def upload_key(dataset_id: str) -> str:
    return f"datasets/{dataset_id}/upload"


def parsed_key(dataset_id: str) -> str:
    return f"datasets/{dataset_id}/data.safetensors"


def builtin_key(name: str, sha256: str) -> str:
    """A new library version may bring other numbers: they get a file of their own."""
    return f"datasets/builtin/{name}-{sha256[:16]}.safetensors"


def check_name(name: str) -> None:
    """Raises InvalidRequest for a name that could not stand in a URL or would look like an id."""
    message = None
    if name.startswith("dst_"):
        message = "must not begin with dst_: that is how ids begin"
    elif name in (".", "..") or "/" in name or "\\" in name or not name.isprintable() or name != name.strip():
        message = "must be printable, without slashes and without spaces at its ends"
    if message:
        raise InvalidRequest(f"name {name!r} {message}", errors=[FieldError(("body", "name"), message)])


def register_upload(tx: Transaction, project: str, upload: Upload) -> tuple[str, bool]:
    """Writes down an upload and rings a parser after the commit: (id of the data set, whether it is new).

    The same file with the same target and task is the data set that it was the first time, under its first name.
    Raises Conflict `name_taken`.
    """
    check_name(upload.name)
    if dataset_rows.builtin_exists(tx, upload.name):
        raise _name_taken(upload.name, "a built-in data set")
    dataset_rows.delete_failed(tx, project, upload.name, upload.content_key)
    row = {
        "id": upload.dataset_id,
        "project_id": project,
        "name": upload.name,
        "state": DatasetState.PARSING.value,
        "filename": upload.filename,
        "target": upload.target,
        "requested_task": upload.task.value if upload.task else None,
        "sha256": upload.sha256,
        "content_key": upload.content_key,
        "size_bytes": upload.size_bytes,
    }
    if dataset_rows.insert_unless_known(tx, row):
        tx.after_commit(lambda: send("datasets.parse", upload.dataset_id), once=("parse", upload.dataset_id))
        return upload.dataset_id, True
    known = dataset_rows.find_by_content(tx, project, upload.content_key)
    if known is None:
        raise _name_taken(upload.name, "another file")
    return known.id, False


def status(tx: Transaction, project: str, id_or_name: str) -> Dataset | PendingDataset:
    """The data set, whatever its state. Raises NotFound."""
    stored = _find(tx, project, id_or_name)
    if stored.state is DatasetState.READY:
        return _to_wire(stored)
    return PendingDataset(
        id=stored.id,
        name=stored.name,
        state=stored.state,
        error=DatasetFault.model_validate(stored.error) if stored.error else None,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        created_at=stored.created_at,
    )


def get(tx: Transaction, project: str, id_or_name: str) -> Dataset:
    """A data set that can be trained on. Raises NotFound, and Conflict while its file is being read."""
    stored = _find(tx, project, id_or_name)
    if stored.state is DatasetState.PARSING:
        raise Conflict(f"data set {stored.name!r} is still being read; try again in a moment", code="dataset_parsing")
    if stored.state is DatasetState.FAILED:
        raise Conflict(f"the file of data set {stored.name!r} could not be read", code="dataset_failed")
    return _to_wire(stored)


def list_page(tx: Transaction, project: str, *, limit: int, cursor: str | None) -> Page[Dataset]:
    """The data sets that can be trained on, the newest first. Raises InvalidRequest for a strange cursor."""
    found = dataset_rows.list_ready(tx, project, before=read_moment(cursor, "dst_"), limit=limit + 1)
    items = [_to_wire(stored) for stored in found[:limit]]
    more = len(found) > limit
    return Page(items=items, next=write_cursor((items[-1].created_at, items[-1].id)) if more else None)


def delete(tx: Transaction, project: str, id_or_name: str) -> list[str]:
    """Deletes a data set; the keys of the artifacts to delete after the commit.

    Raises NotFound, Forbidden for a built-in one, Conflict `dataset_in_use` while an unfinished experiment uses it.
    """
    # Locked, so that no experiment can take it up between the check and the end of the transaction.
    stored = dataset_rows.find(tx, project, id_or_name, for_update=True)
    if stored is None:
        raise _unknown(tx, project, id_or_name)
    if stored.project_id is None:
        raise Forbidden(f"data set {stored.name!r} is built in and cannot be deleted", code="builtin_dataset")
    users = dataset_rows.unfinished_users(tx, stored.id, limit=3)
    if users:
        raise Conflict(
            f"data set {stored.name!r} is used by {', '.join(users)}, not finished yet: cancel or await them first",
            code="dataset_in_use",
        )
    dataset_rows.delete_one(tx, stored.id)
    return [upload_key(stored.id), parsed_key(stored.id)]


def parsing_source(tx: Transaction, dataset_id: str) -> Source | None:
    """What to parse; None when that is done or the data set is gone."""
    stored = dataset_rows.find_by_id(tx, dataset_id)
    if stored is None or stored.state is not DatasetState.PARSING:
        return None
    return Source(
        dataset_id=stored.id,
        name=stored.name,
        filename=stored.filename,
        target=stored.target,
        task=Task(stored.requested_task) if stored.requested_task else None,
        upload=upload_key(stored.id),
        parsed=parsed_key(stored.id),
    )


def finish_parsing(tx: Transaction, bus: Bus, dataset_id: str, parsed: ParsedDataset) -> bool:
    """The file is a data set. False when it was deleted meanwhile: delete its artifacts then."""
    done = dataset_rows.finish(tx, dataset_id, {"state": DatasetState.READY.value, "error": None, **_columns(parsed)})
    tx.after_commit(lambda: bus.publish(dataset_id))
    return done


def fail_parsing(tx: Transaction, bus: Bus, dataset_id: str, code: str, message: str) -> bool:
    """The file is not a data set, and `message` says why. False when it was deleted meanwhile."""
    error = {"code": code, "message": _storable(message)}
    done = dataset_rows.finish(tx, dataset_id, {"state": DatasetState.FAILED.value, "error": error})
    tx.after_commit(lambda: bus.publish(dataset_id))
    return done


def register_builtin(tx: Transaction, name: str, parsed: ParsedDataset, *, sha256: str, size_bytes: int) -> Dataset:
    """Publishes a built-in data set to every project, or what is new about it; its id stays the same."""
    row = {
        "id": new_id("dst"),
        "project_id": None,
        "name": name,
        "state": DatasetState.READY.value,
        "filename": name,
        "sha256": sha256,
        "content_key": sha256,
        "size_bytes": size_bytes,
        **_columns(parsed),
    }
    return _to_wire(dataset_rows.upsert_builtin(tx, row))


def missing_builtins(tx: Transaction, names: Sequence[str]) -> list[str]:
    """Which of these built-in data sets nobody has published yet."""
    return [name for name in names if not dataset_rows.builtin_exists(tx, name)]


def forget_failed(tx: Transaction) -> int:
    """Deletes what failed a while ago: for upkeep. How many there were."""
    return dataset_rows.delete_old_failed(tx, _FAILED_KEPT)


def _find(tx: Transaction, project: str, id_or_name: str) -> StoredDataset:
    stored = dataset_rows.find(tx, project, id_or_name)
    if stored is None:
        raise _unknown(tx, project, id_or_name)
    return stored


def _unknown(tx: Transaction, project: str, id_or_name: str) -> NotFound:
    known = dataset_rows.names(tx, project, _NAMES_SHOWN)
    return NotFound(f"there is no data set {id_or_name!r}; there are {', '.join(known) or 'none yet'}")


def _name_taken(name: str, by: str) -> Conflict:
    return Conflict(f"the name {name!r} is taken by {by}; choose another, or delete that one", code="name_taken")


def _columns(parsed: ParsedDataset) -> dict[str, object]:
    return {
        "artifact": parsed.artifact,
        "task": parsed.task.value,
        "modality": parsed.modality,
        "views": list(parsed.views),
        "rows": parsed.rows,
        "features": parsed.features,
        "classes": parsed.classes,
        "target": None if parsed.target is None else _storable(parsed.target),
        "meta_features": dict(parsed.meta_features),
        "warnings": [_storable(warning) for warning in parsed.warnings],
    }


def _storable(text: str) -> str:
    """Without what Postgres cannot keep: names in a strange file may hold anything."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _to_wire(stored: StoredDataset) -> Dataset:
    return Dataset(
        id=stored.id,
        name=stored.name,
        task=Task(stored.task or ""),
        modality=stored.modality or "",
        views=stored.views,
        rows=stored.rows or 0,
        features=stored.features or 0,
        classes=stored.classes,
        target=stored.target,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        builtin=stored.project_id is None,
        created_at=stored.created_at,
        meta_features=stored.meta_features,
        warnings=stored.warnings,
    )
