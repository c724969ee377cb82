"""What a recommendation needs to know when nobody who learns from it answers."""

from __future__ import annotations

from sqlalchemy import func, select

from foretune.metrics import Goal
from foretune.states import ExperimentState, TrialState
from service.db import trials as trial_rows
from service.db.session import Transaction
from service.db.tables import experiments, trials
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


def histories(tx: Transaction, project_id: str) -> tuple[int, int]:
    """How many experiments of the project ended with results, and how many finished trials they have."""
    query = select(func.count(), func.coalesce(func.sum(experiments.c.trials_finished), 0)).where(
        experiments.c.project_id == project_id,
        experiments.c.state.in_((ExperimentState.COMPLETED, ExperimentState.CANCELED)),
        experiments.c.best_value.is_not(None),
    )
    count, finished = tx.connection.execute(query).one()
    return int(count), int(finished)
