"""An ending that asks for what comes next: a loop's two calls in one, and nearly always in one transaction.

The desk hears of the ending before it is written, and proposes; then the ending and the new trials are committed
together. A desk that takes longer than a moment is not waited for: the ending is committed first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from foretune.errors import ForetuneError, IdempotencyConflict
from foretune.wire import trials as wire
from service.bus import Bus
from service.db.ledger import Ledger
from service.db.ledger_batches import LedgerBatches
from service.db.session import Database
from service.usecases import reports, suggestions
from service.usecases.idempotency import Once
from service.usecases.proposals import ToldEnding
from service.usecases.suggestions import Ask, Granted
from service.usecases.trials import Proposed

_TOGETHER_S = 0.2
"""So long an ending waits for the proposals that it goes with."""


async def complete_and_suggest(
    database: Database,
    ledgers: LedgerBatches,
    bus: Bus,
    project: str,
    trial_id: str,
    request: wire.CompleteRequest,
    once: Once | None,
) -> wire.Completed:
    """Ends a trial and leases up to `request.next.count` others; the same ones again for the same `once`.

    The ending stands where there are none to get: then `next` is without trials. Raises what `reports.complete` does,
    and IdempotencyConflict.
    """
    assert request.next is not None
    ending = partial(reports.complete, trial_id=trial_id, request=request)
    seen = ledgers.look(project, trial_id)
    told = reports.foretold(*seen, request) if seen is not None else None
    if seen is not None and told is not None and request.next.wait_seconds > 0:
        asked = Ask(database, bus, project, seen[0].id, request.next.count, once)
        if asked.expects_new_trials():
            try:
                return await _together(ledgers, asked, ending, told, request.next.wait_seconds)
            except IdempotencyConflict:
                asked.expect_nothing()  # Asked before: nothing was written, and whoever looks finds the answer.
    ended = await ledgers.on_trial(project, trial_id, ending)
    try:
        found = await suggestions.suggest(database, ledgers, bus, project, ended.experiment, request.next, once)
    except IdempotencyConflict:
        raise
    except ForetuneError:
        found = wire.Suggestions(trials=[])
    return _completed(ended, found)


async def _together(
    ledgers: LedgerBatches, asked: Ask, ending: partial[wire.Trial], told: ToldEnding, wait_s: float
) -> wire.Completed:
    """The ending, and trials whose proposals have seen it. Raises IdempotencyConflict, and what the ending raises."""
    coming = asyncio.ensure_future(suggestions.proposals_for(asked.bus, asked.experiment_id, asked.count, wait_s, told))
    try:
        await asyncio.wait({coming}, timeout=_TOGETHER_S)
        if coming.done():
            both = partial(_end_and_grant, asked, ending, coming.result())
            ended, granted = await ledgers.on_trial(asked.project, told.trial_id, both)
        else:
            ended = await ledgers.on_trial(asked.project, told.trial_id, ending)
            then = partial(_grant, asked, await coming)
            granted = await ledgers.on_experiment(asked.project, asked.experiment_id, then)
    finally:
        coming.cancel()
    if granted is None or not granted.suggestions.trials:
        asked.expect_nothing()
        return _completed(ended, wire.Suggestions(trials=[]))
    return _completed(ended, suggestions.answer_of(asked, granted))


def _end_and_grant(
    asked: Ask, ending: partial[wire.Trial], proposals: Sequence[Proposed], ledger: Ledger
) -> tuple[wire.Trial, Granted | None]:
    ended = ending(ledger)
    return ended, _grant(asked, proposals, ledger)


def _grant(asked: Ask, proposals: Sequence[Proposed], ledger: Ledger) -> Granted | None:
    """None where the experiment gives no more trials: it may have ended with this one."""
    try:
        return suggestions.grant(asked, proposals, ledger, looked=False)
    except ForetuneError:
        return None


def _completed(ended: wire.Trial, found: wire.Suggestions) -> wire.Completed:
    return wire.Completed.model_construct(**dict(ended), next=found)
