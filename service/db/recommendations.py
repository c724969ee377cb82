"""What a recommendation needs to know when nobody who learns from it answers."""

from __future__ import annotations

from sqlalchemy import select

from foretune.metrics import Goal
from foretune.states import TrialState
from service.db import trials as trial_rows
from service.db.session import Transaction
from service.db.tables import trials
from service.db.trials import StoredTrial

_USABLE = (TrialState.COMPLETED, TrialState.STOPPED, TrialState.RUNNING, TrialState.PAUSED, TrialState.QUEUED)


def best_trials(tx: Transaction, experiment_id: str, goal: Goal, limit: int) -> list[StoredTrial]:
    """The trials with the best values, the best first; what failed or diverged is none to recommend."""
    value = trials.c.best_value
    query = (
        select(trials)
        .where(trials.c.experiment_id == experiment_id, value.is_not(None), trials.c.state.in_(_USABLE))
        .order_by(value.desc() if goal is Goal.MAXIMIZE else value.asc(), trials.c.number)
        .limit(limit)
    )
    return [trial_rows.from_row(row) for row in tx.connection.execute(query)]
