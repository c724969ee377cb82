"""Checkpoints that nothing refers to: what a worker left that died between writing one and reporting it."""

from __future__ import annotations

from datetime import timedelta

import structlog

from foretune.errors import ForetuneError
from service.artifacts import ArtifactStore
from service.db import trials as trial_rows
from service.db import upkeep as upkeep_rows
from service.db.session import Database
from service.settings import settings

_AT_ONCE = 20

_log = structlog.get_logger(__name__)


def folder_of(experiment_id: str) -> str:
    """The key under which all checkpoints of an experiment lie."""
    return f"checkpoints/{experiment_id}"


def tidy_finished(database: Database, artifacts: ArtifactStore) -> int:
    """Goes through the checkpoints of experiments that have ended; how many experiments that were.

    Only when two leases have passed since the end: by then every worker that could still write one knows that it is
    over, and deletes its own. Whoever dies in the middle leaves the rest to the next; several at once do no harm.
    """
    ago = timedelta(seconds=2 * settings().foretune_worker_lease_s)
    with database.transaction() as tx:
        found = {
            experiment_id: trial_rows.artifacts_of(tx, experiment_id)
            for experiment_id in upkeep_rows.finished_untidied(tx, ago, _AT_ONCE)
        }
    for experiment_id, kept in found.items():
        try:
            deleted = artifacts.delete_all_but(folder_of(experiment_id), frozenset(kept))
        except ForetuneError as error:
            # The store is away: the experiment's turn comes again.
            _log.warning("checkpoints_not_tidied", experiment=experiment_id, error=error.message)
            return 0
        if deleted:
            _log.info("checkpoints_tidied", experiment=experiment_id, deleted=deleted)
        with database.transaction() as tx:
            upkeep_rows.mark_tidied(tx, experiment_id)
    return len(found)
