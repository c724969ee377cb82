"""The ledger's SQL: what locks and reads, and the one statement that writes everything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from service.db import experiments as experiment_rows
from service.db import trials as trial_rows

# What a trial was proposed with never changes.
_TRIAL_CHANGES = [
    name
    for name in trial_rows.COLUMNS
    if name
    not in (
        *("id", "experiment_id", "number", "configuration", "hyperparameters", "lr_schedule", "max_epochs"),
        *("origin", "predicted", "proposal", "created_at"),
    )
]
RUNNING_CHANGES = [
    *("state", "reason", "started_at", "finished_at", "rung_at", "event_seq", "epochs", "failed_shifts"),
    *("trials_created", "trials_finished", "trials_running", "trials_queued"),
    *("best_trial_id", "best_value", "best_epoch"),
]
"""What work changes of an experiment. The rest is what was submitted: large, and changed by a patch alone."""
SUBMITTED_CHANGES = [
    name
    for name in experiment_rows.COLUMNS
    if name not in ("id", "project_id", "mode", "dataset_id", "dataset_name", "network", "seed", "created_at", "model")
    and name not in RUNNING_CHANGES
]
CHANGED_TRIAL = ("id", *_TRIAL_CHANGES)
_THIS_REVISION = "pg_current_xact_id()::xid::text"
"""The revision of every row that this transaction writes: `xmin` is the transaction that wrote a row last."""
_HEAD = f"clock_timestamp(), e.xmin::text, {_THIS_REVISION}"
"""The time, the experiment's revision, and the one that it will have if it is written."""


def _lock(condition: str) -> bytes:
    """`_HEAD`, and the experiment. NO KEY UPDATE shuts out every other ledger, but no row that refers to it."""
    columns = ", ".join(f"e.{name}" for name in experiment_rows.COLUMNS)
    return f"""
        SELECT {_HEAD}, {columns} FROM experiments AS e
        WHERE e.id = %(id)s {condition} FOR NO KEY UPDATE
    """.encode()  # noqa: S608 - names of ours


def _lock_with_trial(condition: str) -> bytes:
    """The experiment and the trial, both locked in this order: after a wait both are as their last writer left them."""
    columns = ", ".join(
        [f"e.{name}" for name in experiment_rows.COLUMNS] + [f"t.{name}" for name in trial_rows.COLUMNS]
    )
    return f"""
        SELECT {_HEAD}, {columns} FROM experiments AS e JOIN trials AS t ON t.experiment_id = e.id
        WHERE t.id = %(id)s {condition} FOR NO KEY UPDATE OF e, t
    """.encode()  # noqa: S608 - names of ours


def _trials() -> bytes:
    """Trials of the experiment, which is locked: nobody but the holder of that lock changes them."""
    columns = ", ".join(trial_rows.COLUMNS)
    return f"SELECT {columns} FROM trials WHERE experiment_id = %(id)s AND id = ANY(%(trials)s)".encode()  # noqa: S608


@lru_cache(maxsize=256)
def write(parts: frozenset[str], *, submitted: bool) -> bytes:
    """The experiment, and those of `_PARTS` that there is something for, in one statement.

    The parts refer to nothing of each other: Postgres runs them on one snapshot. One that has nothing to do would still
    cost it a tenth of a millisecond. `submitted`: what was submitted changes too.
    """
    whole = ", ".join(f"{name} AS ({text.format(guard='true')})" for name, text in _PARTS.items() if name in parts)
    return f"{f'WITH {whole}' if whole else ''} {_experiment(submitted=submitted)}".encode()


@lru_cache(maxsize=256)
def write_unchanged(parts: frozenset[str]) -> bytes:
    """As `write`, and only if the experiment has `%(revision)s` still: the time and its new revision, or no row.

    Whoever changes a trial changes its experiment, so what was known of its trials is true as well. The parts wait for
    `mine`, which waits for whoever has the row's lock.
    """
    mine = f"{_experiment(submitted=False)} AND experiments.xmin = %(revision)s::xid RETURNING 1"
    whole = "".join(
        f", {name} AS ({text.format(guard='EXISTS (SELECT FROM mine)')})"
        for name, text in _PARTS.items()
        if name in parts
    )
    return f"WITH mine AS ({mine}){whole} SELECT clock_timestamp(), {_THIS_REVISION} FROM mine".encode()  # noqa: S608


def _experiment(*, submitted: bool) -> str:
    return f"""
        UPDATE experiments SET {_assignments(RUNNING_CHANGES + (SUBMITTED_CHANGES if submitted else []))}
        FROM jsonb_populate_record(NULL::experiments, %(experiment)s::jsonb) AS row
        WHERE experiments.id = row.id
    """  # noqa: S608 - names of ours


def _assignments(names: Sequence[str]) -> str:
    return ", ".join(f"{name} = row.{name}" for name in names)


def _inserted(table: str, columns: str, part: str) -> str:
    """Rows of which some columns are given."""
    rows = f"jsonb_populate_recordset(NULL::{table}, %({part})s::jsonb)"
    return f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {rows} WHERE {{guard}}"  # noqa: S608


def _changed(rows: str) -> str:
    assigned = _assignments(_TRIAL_CHANGES)
    return f"UPDATE trials SET {assigned} FROM {rows} AS row WHERE trials.id = row.id AND {{guard}}"  # noqa: S608


_PARTS = {
    "made": "INSERT INTO trials SELECT row.* FROM jsonb_populate_recordset(NULL::trials, %(made)s::jsonb) AS row "
    "WHERE {guard}",
    # Of a record the planner knows that it is one, and uses the index.
    "changed": _changed("jsonb_populate_record(NULL::trials, %(changed)s::jsonb)"),
    "changed_many": _changed("jsonb_populate_recordset(NULL::trials, %(changed_many)s::jsonb)"),
    "measured": _inserted("measurements", "trial_id, epoch, experiment_id, seq, value, seconds, metrics", "measured")
    + " ON CONFLICT DO NOTHING",
    "told": _inserted("events", "experiment_id, seq, type, data", "told"),
    "answered": _inserted("idempotency_keys", "project_id, key, fingerprint, status, body", "answered"),
}
"""What a transaction may write besides the experiment; each takes its rows from the parameter of its name.

Braces: what must hold for it to be written.
"""
_OF_PROJECT = "AND e.project_id = %(project)s"
LOCK, LOCK_IN_PROJECT = _lock(""), _lock(_OF_PROJECT)
LOCK_TRIAL, LOCK_TRIAL_IN_PROJECT = _lock_with_trial(""), _lock_with_trial(_OF_PROJECT)
TRIALS = _trials()
