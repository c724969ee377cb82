"""What an export reads, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from service.db import trials as trial_rows
from service.db.session import Transaction
from service.db.tables import measurements
from service.db.trials import StoredMeasurement, StoredTrial


def trials_after(tx: Transaction, experiment_id: str, number: int, limit: int) -> list[StoredTrial]:
    """The trials that follow number `number`."""
    return trial_rows.list_by_number(tx, experiment_id, state=None, after=number, limit=limit)


def curves(tx: Transaction, trial_ids: Sequence[str]) -> dict[str, list[StoredMeasurement]]:
    """The measurements of each of these trials, by epoch."""
    columns = (
        measurements.c.epoch,
        measurements.c.value,
        measurements.c.seconds,
        measurements.c.metrics,
        measurements.c.created_at,
    )
    query = (
        select(measurements.c.trial_id, *columns)
        .where(measurements.c.trial_id.in_(trial_ids))
        .order_by(measurements.c.trial_id, measurements.c.epoch)
    )
    found: dict[str, list[StoredMeasurement]] = {trial_id: [] for trial_id in trial_ids}
    for trial_id, *values in tx.connection.execute(query):
        found[trial_id].append(StoredMeasurement(*values))
    return found
