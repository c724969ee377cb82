"""What proposals rest on, and bringing it up to date."""

from __future__ import annotations

from foretune.wire.histories import MetaLearner
from service.db import histories as history_rows
from service.db.session import Database, Transaction
from service.usecases import histories


def describe(tx: Transaction, project: str) -> MetaLearner:
    """No model is fitted on histories yet: proposals come from the portfolio that the histories make, version 0."""
    experiments, trials = history_rows.count(tx, project)
    return MetaLearner(
        version=0,
        kind="portfolio",
        experiments=experiments,
        imported=history_rows.count_imported(tx, project),
        trials=trials,
        updated_at=history_rows.newest(tx, project),
        waiting=history_rows.any_uncompacted(tx, project, None),
    )


def fit(database: Database, project: str) -> MetaLearner:
    """Makes histories of whatever has finished, and says what there is now. Portfolios follow by themselves."""
    histories.catch_up(database, project)
    with database.reading() as tx:
        return describe(tx, project)
