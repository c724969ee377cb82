"""Where a trial must stand at an epoch to go on: computed by a worker, compared by whoever takes a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.dialects.postgresql import insert

from service.db.session import Transaction
from service.db.tables import stopping_thresholds

_FIND = b"SELECT thresholds FROM stopping_thresholds WHERE experiment_id = %(experiment)s"


def thresholds(tx: Transaction, experiment_id: str) -> dict[int, float]:
    """Epoch -> the best value so far that a trial needs there; empty until a worker has computed any."""
    found = tx.rows(_FIND, {"experiment": experiment_id})
    stored = found[0][0] if found else {}
    assert isinstance(stored, dict)
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
