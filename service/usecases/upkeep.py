"""What beat does every few seconds: free what the dead held, ring again where a message was lost, end what is over."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import groupby

import structlog

from foretune.errors import NotFound
from foretune.events import EventType
from foretune.states import TrialState
from foretune.wire.experiments import Mode
from service.bus import Bus
from service.bus.tasks import send
from service.db import trials as trial_rows
from service.db import upkeep as upkeep_rows
from service.db.ledger import Ledger
from service.db.session import Database, Transaction
from service.db.trials import StoredTrial
from service.usecases import datasets, experiments, fitting, histories, outcomes

MAX_ATTEMPTS = 8
"""A trial whose worker died so many times in a row, with no epoch done in between, takes its workers with it."""
_RING_AFTER = timedelta(seconds=5)

_log = structlog.get_logger(__name__)


def sweep(database: Database, bus: Bus) -> None:
    """One round. Several at once do no harm: every step holds the ledger of the experiment that it changes."""
    with database.transaction() as tx:
        expired = trial_rows.expired(tx)
    for experiment_id, rows in groupby(expired, key=lambda row: row[0]):
        # It may have been canceled and deleted since.
        with suppress(NotFound):
            _free_expired(database, bus, experiment_id, [trial_id for _, trial_id in rows])
    with database.transaction() as tx:
        open_ids = upkeep_rows.open_experiments(tx, _RING_AFTER)
    # A message says that there is work, whoever it names. While all workers are busy nobody takes any: one for each
    # experiment is enough.
    told = bus.waiting_to_train() >= len(open_ids)
    for experiment_id in open_ids:
        with suppress(NotFound):
            _wake(database, bus, experiment_id, ring=not told)
    with database.transaction() as tx:
        for dataset_id in upkeep_rows.stuck_datasets(tx, _RING_AFTER):
            tx.after_commit(lambda dataset_id=dataset_id: send("datasets.parse", dataset_id), once=dataset_id)  # type: ignore[misc]
        upkeep_rows.forget_old(tx)
        datasets.forget_failed(tx)
    histories.compact_finished(database)
    with database.transaction() as tx:
        fitting.request_due(tx)


def _free_expired(database: Database, bus: Bus, experiment_id: str, trial_ids: list[str]) -> None:
    with (
        database.transaction() as tx,
        Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger,
    ):
        for trial_id in trial_ids:
            trial = ledger.trial(trial_id)
            if trial.state is not TrialState.RUNNING or not trial.lease_until:
                continue
            if trial.lease_until >= ledger.now:
                continue
            managed = ledger.experiment.mode == Mode.MANAGED
            holder = trial.worker if managed else "client"
            ledger.event(
                EventType.WORKER_LOST,
                {"trial": trial.id, "number": trial.number, "worker": holder, "attempts": trial.attempts},
            )
            if _is_hopeless(tx, trial):
                reason = f"its {'worker' if managed else 'client'} was lost {MAX_ATTEMPTS} times in a row"
                outcomes.finish_trial(ledger, trial, TrialState.FAILED, reason=reason)
            else:
                outcomes.free_trial(ledger, trial, "its lease ran out")
            _log.warning("lease_ran_out", trial=trial.id, worker=holder, attempts=trial.attempts)
        if not outcomes.finish_experiment_if_due(ledger) and ledger.experiment.mode == Mode.MANAGED:
            experiments.ring(ledger, workers=1)


def _is_hopeless(tx: Transaction, trial: StoredTrial) -> bool:
    """Whether this loss is one too many. Attempts alone say little: a long trial goes through many shifts."""
    return trial.attempts >= MAX_ATTEMPTS and upkeep_rows.losses_in_a_row(tx, trial) >= MAX_ATTEMPTS - 1


def _wake(database: Database, bus: Bus, experiment_id: str, *, ring: bool) -> None:
    """Ends the experiment if it is over; else, with `ring`, rings if nobody works on it, or if more could."""
    with (
        database.transaction() as tx,
        Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger,
    ):
        if outcomes.finish_experiment_if_due(ledger):
            return
        # It was looked after: with very many experiments, the others come first next time.
        ledger.change(rung_at=ledger.now)
        now = ledger.experiment
        # Whoever holds all that may run will take the rest too.
        if ring and now.mode == Mode.MANAGED and now.trials_to_run and now.trials_running < now.parallelism:
            experiments.ring(ledger, workers=1)
