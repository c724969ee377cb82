"""Data sets: rows in, values out. A row with project NULL is built in and seen by all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, RowMapping, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from foretune.json_types import JsonObject
from foretune.wire.datasets import DatasetState
from service.db.session import Transaction
from service.db.tables import datasets, experiments


@dataclass(frozen=True)
class StoredDataset:
    """A data set as Postgres knows it; what the parser finds out is empty until the state is READY."""

    id: str
    project_id: str | None
    name: str
    state: DatasetState
    error: JsonObject | None
    filename: str
    target: str | None
    requested_task: str | None
    sha256: str
    content_key: str
    size_bytes: int
    artifact: str | None
    task: str | None
    modality: str | None
    views: list[str]
    rows: int | None
    features: int | None
    classes: int | None
    meta_features: dict[str, float | str]
    warnings: list[str]
    created_at: datetime


def insert_unless_known(tx: Transaction, row: Mapping[str, object]) -> bool:
    """Inserts a data set; False when its name or its content is there already."""
    statement = upsert(datasets).values(row).on_conflict_do_nothing().returning(datasets.c.id)
    return tx.connection.execute(statement).scalar() is not None


def upsert_builtin(tx: Transaction, row: Mapping[str, object]) -> StoredDataset:
    """Inserts a built-in data set, or replaces what is known of the one with this name; its id stays."""
    statement = upsert(datasets).values(row)
    changed = {name: statement.excluded[name] for name in row if name not in ("id", "name", "project_id")}
    statement = statement.on_conflict_do_update(constraint="uq_datasets_project_id_name", set_=changed)
    return _from_row(tx.connection.execute(statement.returning(datasets)).mappings().one())


def find_by_id(tx: Transaction, dataset_id: str) -> StoredDataset | None:
    """Without a project: for workers."""
    row = tx.connection.execute(select(datasets).where(datasets.c.id == dataset_id)).mappings().one_or_none()
    return _from_row(row) if row else None


def find(tx: Transaction, project_id: str, id_or_name: str, *, for_update: bool = False) -> StoredDataset | None:
    """By id, or by name unless it failed; the project's own before a built-in one."""
    named = (datasets.c.name == id_or_name) & (datasets.c.state != DatasetState.FAILED)
    query = (
        select(datasets)
        .where(or_(datasets.c.id == id_or_name, named), _visible(project_id))
        .order_by((datasets.c.id == id_or_name).desc(), datasets.c.project_id.nulls_last())
        .limit(1)
    )
    if for_update:
        query = query.with_for_update()
    row = tx.connection.execute(query).mappings().one_or_none()
    return _from_row(row) if row else None


def find_by_content(tx: Transaction, project_id: str, content_key: str) -> StoredDataset | None:
    query = select(datasets).where(datasets.c.project_id == project_id, datasets.c.content_key == content_key)
    row = tx.connection.execute(query).mappings().one_or_none()
    return _from_row(row) if row else None


def list_ready(
    tx: Transaction, project_id: str, *, before: tuple[datetime, str] | None, limit: int
) -> list[StoredDataset]:
    """The newest first; `before` is the last one of the page before."""
    query = select(datasets).where(_visible(project_id), datasets.c.state == DatasetState.READY)
    if before is not None:
        query = query.where(tuple_(datasets.c.created_at, datasets.c.id) < before)
    query = query.order_by(datasets.c.created_at.desc(), datasets.c.id.desc()).limit(limit)
    return [_from_row(row) for row in tx.connection.execute(query).mappings()]


def names(tx: Transaction, project_id: str, limit: int) -> list[str]:
    query = select(datasets.c.name).where(_visible(project_id), datasets.c.state == DatasetState.READY)
    return list(tx.connection.execute(query.order_by(datasets.c.name).limit(limit)).scalars())


def builtin_exists(tx: Transaction, name: str) -> bool:
    query = select(datasets.c.id).where(datasets.c.project_id.is_(None), datasets.c.name == name)
    return tx.connection.execute(query).scalar() is not None


def finish(tx: Transaction, dataset_id: str, values: Mapping[str, object]) -> bool:
    """Ends the parsing with `values`; False when it is over or the data set is gone."""
    statement = update(datasets).where(datasets.c.id == dataset_id, datasets.c.state == DatasetState.PARSING)
    return tx.connection.execute(statement.values(values)).rowcount == 1


def delete_failed(tx: Transaction, project_id: str, name: str, content_key: str) -> None:
    """Makes room for another try with this name or this content."""
    same = or_(datasets.c.name == name, datasets.c.content_key == content_key)
    statement = delete(datasets).where(datasets.c.project_id == project_id, datasets.c.state == DatasetState.FAILED)
    tx.connection.execute(statement.where(same))


def delete_old_failed(tx: Transaction, age: timedelta) -> int:
    statement = delete(datasets).where(
        datasets.c.state == DatasetState.FAILED, datasets.c.created_at < func.now() - age
    )
    return tx.connection.execute(statement).rowcount


def delete_one(tx: Transaction, dataset_id: str) -> None:
    tx.connection.execute(delete(datasets).where(datasets.c.id == dataset_id))


def unfinished_users(tx: Transaction, dataset_id: str, limit: int) -> list[str]:
    """The experiments that still need this data set."""
    query = select(experiments.c.id).where(experiments.c.dataset_id == dataset_id, experiments.c.finished_at.is_(None))
    return list(tx.connection.execute(query.order_by(experiments.c.id).limit(limit)).scalars())


def _visible(project_id: str) -> ColumnElement[bool]:
    return or_(datasets.c.project_id == project_id, datasets.c.project_id.is_(None))


def _from_row(row: RowMapping) -> StoredDataset:
    return StoredDataset(**{**row, "state": DatasetState(row["state"])})
