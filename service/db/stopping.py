"""Where a trial must stand at an epoch to go on: computed by a worker, compared by whoever takes a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from service.db.session import Transaction
from service.db.tables import stopping_thresholds


def thresholds(tx: Transaction, experiment_id: str) -> dict[int, float]:
    """Epoch -> the best value so far that a trial needs there; empty until a worker has computed any."""
    query = select(stopping_thresholds.c.thresholds).where(stopping_thresholds.c.experiment_id == experiment_id)
    stored = tx.connection.execute(query).scalar_one_or_none() or {}
    return {int(epoch): value for epoch, value in stored.items()}


def store(tx: Transaction, experiment_id: str, seq: int, values: Mapping[int, float]) -> None:
    """Keeps the thresholds that saw the most."""
    statement = insert(stopping_thresholds).values(
        experiment_id=experiment_id, seq=seq, thresholds={str(epoch): value for epoch, value in values.items()}
    )
    tx.connection.execute(
        statement.on_conflict_do_update(
            index_elements=[stopping_thresholds.c.experiment_id],
            set_={"seq": statement.excluded.seq, "thresholds": statement.excluded.thresholds},
            where=stopping_thresholds.c.seq < statement.excluded.seq,
        )
    )
