"""Fitting as a service: who fits a project's model, which version is in use, and going back to an earlier one.

    request   a fit that somebody asked for, or that is due: state FITTING, with a lease that has ended
    claim     a worker takes it, or one whose worker was lost; what is done is kept, history by history
    finish    the replay decides: CHAMPION, and the one before is RETIRED; or REFUSED, with the reason

Histories that a refused model knew and the one in use did not are marked: they are what made it lose, and neither
recommendations nor later models hear them. A fit that somebody asks for hears them again, and if it wins, so does
everybody. Newer ones are heard at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from foretune.errors import Conflict, LeaseLost, NotFound
from foretune.json_types import JsonObject, JsonValue
from service.bus.tasks import send
from service.db import histories as history_rows
from service.db import models as rows
from service.db.histories import StoredHistory
from service.db.models import FittedPart, ModelState, Standing, StoredModel
from service.db.session import Transaction
from service.usecases import histories
from service.usecases.histories import MAX_HISTORIES

LEASE = timedelta(seconds=30)


class NotPromotable(Conflict):
    """The version cannot be put in use."""

    code = "not_promotable"


def request(tx: Transaction, project: str, *, again: bool) -> bool:
    """Begins a fit of the histories that are heard, for any worker to take; `again`: of those that were refused, too.

    False where that would be the same histories as the last time.
    """
    rows.lock(tx, project)
    known = rows.listed(tx, project)
    if any(one.state is ModelState.FITTING for one in known):
        tx.after_commit(lambda: send("meta.fit", project), once=project)
        return True
    newest = rows.newest_history(tx, project)
    covered = any(one.covers_until >= newest for one in known) if newest is not None else True
    if newest is None or (covered and not (again and rows.any_refused(tx, project))):
        return False
    fingerprints = _covered(tx, project, again=again)
    _, trials = history_rows.count(tx, project)
    rows.insert(
        tx,
        {
            "project_id": project,
            "version": max((one.version for one in known), default=0) + 1,
            "state": ModelState.FITTING.value,
            "parent": next((one.version for one in known if one.state is ModelState.CHAMPION), None),
            "histories": len(fingerprints),
            "trials": trials,
            "covers_until": newest,
            "digest": hashlib.sha256("\n".join(sorted(fingerprints)).encode()).hexdigest(),
            "fitted": 0,
            "scores": {},
            "again": again,
            "lease_until": rows.now(tx),
        },
    )
    tx.after_commit(lambda: send("meta.fit", project), once=project)
    return True


def request_due(tx: Transaction) -> None:
    """What beat does: begins the fits that are due, and rings for those whose worker was lost."""
    for project in rows.due(tx):
        request(tx, project, again=False)


def claim(tx: Transaction, project: str) -> StoredModel | None:
    """The project's fit, if nobody works on it."""
    return rows.take(tx, project, LEASE)


def waits(tx: Transaction, project: str) -> bool:
    """Whether there is a fit to claim."""
    return rows.waits(tx, project)


def keep(tx: Transaction, fit: StoredModel, found: Mapping[str, FittedPart], fitted: int) -> StoredModel:
    """Keeps what was worked out, and the fit for as long as a lease. Raises LeaseLost."""
    if found:
        rows.store_parts(tx, fit.project_id, found)
    return _extended(tx, replace(fit, fitted=fitted), LEASE)


def keep_space(
    tx: Transaction, fit: StoredModel, folds: list[JsonValue], scores: JsonObject | None, space: bytes | None
) -> StoredModel:
    """Keeps what was learned and judged of a space of tasks so far, and the fit as `keep` does. Raises LeaseLost."""
    return _extended(tx, replace(fit, space_folds=folds, space_scores=scores), LEASE, space=space)


def hand_back(tx: Transaction, fit: StoredModel) -> None:
    """Lets the next worker go on, and rings for one. Raises LeaseLost."""
    _extended(tx, fit, timedelta(0))
    tx.after_commit(lambda: send("meta.fit", fit.project_id), once=fit.project_id)


def finish(
    tx: Transaction,
    fit: StoredModel,
    covered: Sequence[str],
    beyond: Sequence[str],
    scores: Mapping[str, float],
    refused: str | None,
) -> None:
    """Puts the model in use, or refuses it. Raises LeaseLost.

    `covered`: the fingerprints of its histories; `beyond`: of those that the model in use did not know.
    """
    rows.lock(tx, fit.project_id)
    _extended(tx, fit, LEASE)
    now = rows.now(tx)
    ended = {"scores": dict(scores), "lease_until": None, "finished_at": now, "space_folds": None}
    if refused is not None:
        refusal = {"state": ModelState.REFUSED.value, "reason": refused, "space": None}
        rows.change(tx, fit.project_id, fit.version, **refusal, **ended)
        rows.mark(tx, fit.project_id, beyond, fit.version)
        return
    rows.mark(tx, fit.project_id, covered, None)
    for one in rows.listed(tx, fit.project_id):
        if one.state is ModelState.CHAMPION:
            rows.change(tx, fit.project_id, one.version, state=ModelState.RETIRED.value)
    rows.change(tx, fit.project_id, fit.version, state=ModelState.CHAMPION.value, promoted_at=now, **ended)


def roll_back(tx: Transaction, project: str, version: int) -> None:
    """Puts an earlier version in use again; the one that is now is refused. Raises NotFound and NotPromotable."""
    rows.lock(tx, project)
    known = {one.version: one for one in rows.listed(tx, project)}
    wanted = known.get(version)
    if wanted is None:
        there = ", ".join(str(one) for one in sorted(known)) or "none"
        raise NotFound(f"there is no model {version}; there are: {there}")
    if wanted.state is ModelState.CHAMPION:
        return
    if wanted.state is not ModelState.RETIRED:
        raise NotPromotable(f"model {version} is {wanted.state}; only one that was in use can be used again")
    for one in known.values():
        if one.state is ModelState.CHAMPION:
            reason = f"rolled back to version {version}"
            rows.change(tx, project, one.version, state=ModelState.REFUSED.value, reason=reason)
            rows.mark(tx, project, rows.written_after(tx, project, wanted.covers_until), one.version)
    rows.change(tx, project, version, state=ModelState.CHAMPION.value, promoted_at=rows.now(tx))


def in_use(tx: Transaction, project: str) -> StoredModel | None:
    """The champion; None while no model was promoted."""
    return rows.champion(tx, project)


def heard(tx: Transaction, project: str) -> list[str]:
    """The fingerprints of the histories that recommendations hear, the newest first."""
    return rows.heard(tx, project, MAX_HISTORIES)


def covered(tx: Transaction, fit: StoredModel) -> list[StoredHistory]:
    """The histories that a fit is made of, the newest first."""
    found = histories.read_some(tx, fit.project_id, _covered(tx, fit.project_id, again=fit.again))
    return [one for one in found if one.created_at <= fit.covers_until]


def standing(tx: Transaction, project: str) -> Standing:
    """What recommendations are made of. Once read, it need not be read again while this stays equal."""
    return rows.standing(tx, project)


def space(tx: Transaction, project: str, version: int | None) -> bytes | None:
    """The space in which a version compares tasks; None where it goes by their features."""
    return rows.space(tx, project, version) if version is not None else None


def parts(tx: Transaction, project: str) -> dict[str, FittedPart]:
    """What was worked out of each history, by fingerprint."""
    return rows.parts(tx, project)


def _covered(tx: Transaction, project: str, *, again: bool) -> list[str]:
    return history_rows.fingerprints(tx, project, MAX_HISTORIES) if again else heard(tx, project)


def _extended(tx: Transaction, fit: StoredModel, lease: timedelta, **values: object) -> StoredModel:
    kept = {"fitted": fit.fitted, "space_folds": fit.space_folds, "space_scores": fit.space_scores, **values}
    until = rows.extend(tx, fit, lease, **kept)
    if until is None:
        raise LeaseLost(f"model {fit.version} is fitted by another worker")
    return replace(fit, lease_until=until)
