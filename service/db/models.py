"""Models of histories: versions with their lineage, and what was worked out of each history. Rows in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, RowMapping, and_, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from foretune.json_types import JsonObject, JsonValue
from service.db.session import Transaction
from service.db.tables import fitted_histories, histories, models


class ModelState(StrEnum):
    FITTING = "FITTING"
    CHAMPION = "CHAMPION"
    """The one in use: at most one of a project."""
    RETIRED = "RETIRED"
    """It was in use, until a later one took its place."""
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class StoredModel:
    """A version. `covers_until`: when the newest history that it knows was written."""

    project_id: str
    version: int
    state: ModelState
    parent: int | None
    histories: int
    trials: int
    covers_until: datetime
    digest: str
    fitted: int
    scores: dict[str, float]
    reason: str | None
    again: bool
    lease_until: datetime | None
    created_at: datetime
    finished_at: datetime | None
    promoted_at: datetime | None
    space_folds: list[JsonValue] | None
    """How its space of tasks did on the folds that are done, while it is fitted."""
    space_scores: JsonObject | None
    """How its space of tasks did on all of them; None where there was too little to learn one from."""


@dataclass(frozen=True)
class FittedPart:
    """What was worked out of one history: a kernel, and the residuals of one that was held out."""

    kernel: JsonValue
    residuals: JsonValue = None


@dataclass(frozen=True)
class Standing:
    """What a project's recommendations are made of: another one whenever the histories are others, another model is in
    use, or others are heard.
    """

    histories: int
    trials: int
    newest: datetime | None
    fitted: int | None
    """The newest version of a model, whether or not it is in use."""
    champion: int | None
    """The version in use."""
    refused: int
    missing: bool = field(compare=False)
    """Whether an experiment has ended of which no history was made yet."""


_READ = [models.c[name] for name in StoredModel.__dataclass_fields__]
_STANDING = b"""
    SELECT
        count(*),
        coalesce(sum(trials), 0),
        max(created_at),
        (SELECT max(version) FROM models WHERE project_id = %(project)s),
        (SELECT version FROM models WHERE project_id = %(project)s AND state = %(champion)s),
        (SELECT count(*) FROM fitted_histories WHERE project_id = %(project)s AND refused_by IS NOT NULL),
        EXISTS (
            SELECT FROM experiments
            WHERE project_id = %(project)s AND finished_at IS NOT NULL AND compacted_at IS NULL
        )
    FROM histories
    WHERE project_id = %(project)s
"""
_NEW_SHARE = 10
"""A fit is due when one history in so many is new."""
_LEAST_DUE = 4
"""Of fewer histories no replay can judge a model: they are fitted when somebody asks."""


def lock(tx: Transaction, project_id: str) -> None:
    """Whoever changes a project's models does it alone, until the transaction ends."""
    tx.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"models {project_id}", 0))))


def listed(tx: Transaction, project_id: str, limit: int | None = None) -> list[StoredModel]:
    """The newest first."""
    query = select(*_READ).where(models.c.project_id == project_id).order_by(models.c.version.desc()).limit(limit)
    return [_from_row(row) for row in tx.connection.execute(query).mappings()]


def champion(tx: Transaction, project_id: str) -> StoredModel | None:
    """The one in use."""
    query = select(*_READ).where(models.c.project_id == project_id, models.c.state == ModelState.CHAMPION.value)
    row = tx.connection.execute(query).mappings().first()
    return _from_row(row) if row else None


def standing(tx: Transaction, project_id: str) -> Standing:
    """What the project's recommendations are made of."""
    (row,) = tx.rows(_STANDING, {"project": project_id, "champion": ModelState.CHAMPION.value})
    return Standing(*row)  # type: ignore[arg-type]


def insert(tx: Transaction, row: Mapping[str, object]) -> None:
    tx.connection.execute(models.insert().values(row))


def change(tx: Transaction, project_id: str, version: int, **values: object) -> None:
    tx.connection.execute(
        update(models).where(models.c.project_id == project_id, models.c.version == version).values(**values)
    )


def take(tx: Transaction, project_id: str, lease: timedelta) -> StoredModel | None:
    """The fit that nobody works on, leased to whoever asks; None without one."""
    query = (
        update(models)
        .where(
            models.c.project_id == project_id,
            models.c.state == ModelState.FITTING.value,
            models.c.lease_until <= func.now(),
        )
        .values(lease_until=func.now() + lease)
        .returning(*_READ)
    )
    row = tx.connection.execute(query).mappings().first()
    return _from_row(row) if row else None


def waits(tx: Transaction, project_id: str) -> bool:
    """Whether there is a fit that nobody works on."""
    query = select(models.c.version).where(
        models.c.project_id == project_id,
        models.c.state == ModelState.FITTING.value,
        models.c.lease_until <= func.now(),
    )
    return tx.connection.execute(query).first() is not None


def extend(tx: Transaction, fit: StoredModel, lease: timedelta, **values: object) -> datetime | None:
    """The lease's new end; None when somebody else holds the fit by now. Without a lease it is free at once."""
    query = (
        update(models)
        .where(
            models.c.project_id == fit.project_id,
            models.c.version == fit.version,
            models.c.state == ModelState.FITTING.value,
            models.c.lease_until == fit.lease_until,
        )
        .values(lease_until=func.now() + lease, **values)
        .returning(models.c.lease_until)
    )
    found: datetime | None = tx.connection.execute(query).scalar()
    return found


def space(tx: Transaction, project_id: str, version: int) -> bytes | None:
    """A version's space of tasks."""
    query = select(models.c.space).where(models.c.project_id == project_id, models.c.version == version)
    found: bytes | None = tx.connection.execute(query).scalar()
    return found


def now(tx: Transaction) -> datetime:
    """The database's clock."""
    found: datetime = tx.connection.execute(select(func.now())).scalar_one()
    return found


def newest_history(tx: Transaction, project_id: str) -> datetime | None:
    query = select(func.max(histories.c.created_at)).where(histories.c.project_id == project_id)
    found: datetime | None = tx.connection.execute(query).scalar_one()
    return found


def due(tx: Transaction, limit: int = 100) -> list[str]:
    """Projects with a fit that its worker left, and those of whose histories enough are new since the last fit."""
    covered = (
        select(models.c.project_id, func.max(models.c.covers_until).label("until"))
        .group_by(models.c.project_id)
        .subquery()
    )
    new = func.count(case((or_(covered.c.until.is_(None), histories.c.created_at > covered.c.until), 1)))
    fitting = models.alias()
    query = (
        select(histories.c.project_id)
        .join(covered, covered.c.project_id == histories.c.project_id, isouter=True)
        .join(
            fitting,
            and_(fitting.c.project_id == histories.c.project_id, fitting.c.state == ModelState.FITTING.value),
            isouter=True,
        )
        .group_by(histories.c.project_id, fitting.c.lease_until)
        .having(
            or_(
                fitting.c.lease_until <= func.now(),
                and_(
                    fitting.c.lease_until.is_(None),
                    func.count() >= _LEAST_DUE,
                    new > 0,
                    new * _NEW_SHARE >= func.count(),
                ),
            )
        )
        .limit(limit)
    )
    return list(tx.connection.execute(query).scalars())


def heard(tx: Transaction, project_id: str, limit: int) -> list[str]:
    """The fingerprints of the histories that made no model lose, the newest first."""
    refused = select(fitted_histories.c.fingerprint).where(_marked(project_id))
    query = select(histories.c.fingerprint).where(
        histories.c.project_id == project_id, histories.c.fingerprint.not_in(refused)
    )
    query = query.order_by(histories.c.ended_at.desc(), histories.c.fingerprint).limit(limit)
    return list(tx.connection.execute(query).scalars())


def any_refused(tx: Transaction, project_id: str) -> bool:
    """Whether some history is not heard."""
    query = select(fitted_histories.c.fingerprint).where(_marked(project_id))
    return tx.connection.execute(query.limit(1)).first() is not None


def mark(tx: Transaction, project_id: str, fingerprints: Sequence[str], version: int | None) -> None:
    """These histories made a version lose and are not heard; with None they are again."""
    tx.connection.execute(
        update(fitted_histories)
        .where(fitted_histories.c.project_id == project_id, fitted_histories.c.fingerprint.in_(fingerprints))
        .values(refused_by=version)
    )


def written_after(tx: Transaction, project_id: str, time: datetime) -> list[str]:
    """The fingerprints of histories that were written since."""
    query = select(histories.c.fingerprint).where(histories.c.project_id == project_id, histories.c.created_at > time)
    return list(tx.connection.execute(query).scalars())


def _marked(project_id: str) -> ColumnElement[bool]:
    return and_(fitted_histories.c.project_id == project_id, fitted_histories.c.refused_by.is_not(None))


def parts(tx: Transaction, project_id: str) -> dict[str, FittedPart]:
    """Of each history that was fitted, by fingerprint."""
    query = select(fitted_histories.c.fingerprint, fitted_histories.c.kernel, fitted_histories.c.residuals).where(
        fitted_histories.c.project_id == project_id
    )
    return {row.fingerprint: FittedPart(row.kernel, row.residuals) for row in tx.connection.execute(query)}


def store_parts(tx: Transaction, project_id: str, found: Mapping[str, FittedPart]) -> None:
    """Those of histories that were deleted meanwhile are dropped."""
    there = select(histories.c.fingerprint).where(
        histories.c.project_id == project_id, histories.c.fingerprint.in_(list(found))
    )
    kept: Sequence[str] = list(tx.connection.execute(there.with_for_update(key_share=True)).scalars())
    if not kept:
        return
    rows = [
        {"project_id": project_id, "fingerprint": one, "kernel": found[one].kernel, "residuals": found[one].residuals}
        for one in kept
    ]
    statement = upsert(fitted_histories).values(rows)
    tx.connection.execute(
        statement.on_conflict_do_update(
            index_elements=["project_id", "fingerprint"],
            set_={"kernel": statement.excluded.kernel, "residuals": statement.excluded.residuals},
        )
    )


def _from_row(row: RowMapping) -> StoredModel:
    return StoredModel(**{**row, "state": ModelState(row["state"])})
