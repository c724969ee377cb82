"""Asking: the next trials of an external experiment.

A freed trial is handed out again first. For the rest a desk worker proposes, having seen every result told so far;
when none answers in time the fallback is a quasi-random point, and `origin` says so.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from foretune.errors import BudgetExhausted, Conflict, ForetuneError, Unavailable
from foretune.json_types import JsonObject
from foretune.quasirandom import r_sequence
from foretune.spaces import Space
from foretune.states import ExperimentState, TrialState
from foretune.wire import trials as wire
from foretune.wire.experiments import LrSchedule, Mode
from service.bus import Bus
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger
from service.db.ledger_batches import LedgerBatches
from service.db.session import Database
from service.db.trials import StoredTrial
from service.settings import settings
from service.usecases import experiments, idempotency, outcomes
from service.usecases.idempotency import Once
from service.usecases.proposals import ToldEnding
from service.usecases.trials import Proposed, start_trial

_log = structlog.get_logger(__name__)
_MUCH_ROOM = 8
"""Trials left in the budget: with fewer an ask may be one too many, and looks before a proposal is made for nothing."""
_REMEMBERED_S = 2.0
_REMEMBERED_EXPERIMENTS = 1000
_roomy_until: dict[tuple[str, str], float] = {}
"""Project and experiment -> until when its next ask may be expected to get new trials."""


@dataclass(frozen=True)
class _Plan:
    """What an ask may get: freed trials, and how many new ones."""

    freed: int
    fresh: int


async def suggest(
    database: Database,
    ledgers: LedgerBatches,
    bus: Bus,
    project: str,
    experiment_id: str,
    request: wire.SuggestionRequest,
    once: Once | None = None,
) -> wire.Suggestions:
    """Leases up to `request.count` trials; the same ones again for the same `once`.

    Raises NotFound, BudgetExhausted when `max_trials` are out, Conflict when the experiment is paused, finished or
    managed, IdempotencyConflict.
    """
    asked = Ask(database, bus, project, experiment_id, request.count, once)
    if request.wait_seconds > 0 and asked.expects_new_trials():
        try:
            proposals = await proposals_for(bus, experiment_id, request.count, request.wait_seconds)
            granted = await ledgers.on_experiment(
                project, experiment_id, partial(grant, asked, proposals, looked=False)
            )
            return answer_of(asked, granted)
        except Unavailable:
            raise
        except ForetuneError:
            # It has changed: nothing was leased, and whoever looks first gives the precise answer.
            asked.expect_nothing()
    plan = await asyncio.to_thread(_plan, asked)
    if isinstance(plan, wire.Suggestions):
        return plan
    proposals = []
    if plan.fresh and request.wait_seconds > 0:
        proposals = await proposals_for(bus, experiment_id, plan.fresh, request.wait_seconds)
    return await asyncio.to_thread(_accept, asked, proposals)


@dataclass(frozen=True)
class Ask:
    """One client's ask."""

    database: Database
    bus: Bus
    project: str
    experiment_id: str
    count: int
    once: Once | None

    def expects_new_trials(self) -> bool:
        """Whether an ask of a moment ago left the experiment open, no freed trial and much room in the budget.

        Then this one need not look at the experiment before it asks the desk. Where this turns out wrong, nothing is.
        """
        return time.monotonic() < _roomy_until.get((self.project, self.experiment_id), 0.0)

    def expect_like(self, experiment: StoredExperiment) -> None:
        """Remembers how this ask left the experiment."""
        room = experiment.max_trials - experiment.trials_created
        if experiment.state.finished or experiment.trials_queued or room < _MUCH_ROOM:
            self.expect_nothing()
            return
        if len(_roomy_until) > _REMEMBERED_EXPERIMENTS:
            _roomy_until.clear()
        _roomy_until[self.project, self.experiment_id] = time.monotonic() + _REMEMBERED_S

    def expect_nothing(self) -> None:
        """The next ask looks first."""
        _roomy_until.pop((self.project, self.experiment_id), None)


def _plan(asked: Ask) -> _Plan | wire.Suggestions:
    """What the ask may get, or what it got when it was asked before."""
    with asked.database.reading() as tx:
        if asked.once is not None and (answered := idempotency.recall(tx, asked.project, asked.once)) is not None:
            return wire.Suggestions.model_validate_json(answered.body)
        stored = experiments.find(tx, asked.project, asked.experiment_id)
        _check_open(stored)
        freed = stored.trials_queued
        fresh = min(max(asked.count - freed, 0), stored.max_trials - stored.trials_created)
        if freed + fresh == 0:
            raise _exhausted(stored)
        return _Plan(freed, fresh)


async def proposals_for(
    bus: Bus, experiment_id: str, count: int, wait_s: float, told: ToldEnding | None = None
) -> list[Proposed]:
    """The desk's proposals, which have seen what is `told` as well; none when it does not answer in time."""
    payload: JsonObject = {"experiment": experiment_id, "count": count}
    if told is not None:
        payload["told"] = told.to_json()
    answer = await bus.call("propose", payload, wait_s)
    proposals = answer.get("proposals") if answer is not None else None
    read = [_read(one) for one in proposals[:count]] if isinstance(proposals, list) else []
    understood = [one for one in read if one is not None]
    if len(understood) < len(read):
        _log.warning("proposals_not_understood", experiment=experiment_id, proposals=proposals)
    return understood


def _read(one: object) -> Proposed | None:
    """None for what a desk of another version may say."""
    if not isinstance(one, dict) or not isinstance(origin := one.get("origin"), str):
        return None
    configuration, predicted, replay = one.get("configuration"), one.get("predicted"), one.get("replay")
    if not isinstance(configuration, dict) or not isinstance(replay, dict):
        return None
    return Proposed(configuration, origin, predicted if isinstance(predicted, dict) else None, replay)


def _fallback(experiment: StoredExperiment, count: int) -> list[Proposed]:
    """Quasi-random points, each trial number's own."""
    space, start = Space.from_json(experiment.space), experiment.trials_created
    points = r_sequence(space.dimensions, start=start, count=count, seed=experiment.seed)
    return [
        Proposed(space.from_unit(point), "fallback", None, {"index": start + offset, "seed": experiment.seed})
        for offset, point in enumerate(points)
    ]


@dataclass(frozen=True)
class Granted:
    """Leased trials, and the experiment as it was left."""

    suggestions: wire.Suggestions
    experiment: StoredExperiment


def _accept(asked: Ask, proposals: Sequence[Proposed]) -> wire.Suggestions:
    """Leases trials, unless there is an answer with the same key already."""
    with (
        asked.database.transaction() as tx,
        Ledger.of_experiment(tx, asked.experiment_id, project=asked.project, wake=asked.bus.publish) as ledger,
    ):
        if asked.once is not None and (answered := idempotency.begin(tx, asked.project, asked.once)) is not None:
            return wire.Suggestions.model_validate_json(answered.body)
        granted = grant(asked, proposals, ledger, looked=True)
    return answer_of(asked, granted)


def grant(asked: Ask, proposals: Sequence[Proposed], ledger: Ledger, *, looked: bool) -> Granted:
    """Leases trials. Unless it was `looked` for, an earlier answer with the same key shows when this one is written."""
    _check_open(ledger.experiment)
    over = outcomes.finish_experiment_if_due(ledger)
    trials = [] if over else _lease(ledger, asked.count, proposals)
    suggestions = wire.Suggestions(trials=[_suggestion(trial) for trial in trials])
    if asked.once is not None and trials:
        body = suggestions.model_dump_json()
        if looked:
            idempotency.remember(ledger.tx, asked.project, asked.once, status=200, body=body)
        else:
            ledger.add_answer(asked.once.key, asked.once.fingerprint, status=200, body=body)
    return Granted(suggestions, ledger.experiment)


def answer_of(asked: Ask, granted: Granted) -> wire.Suggestions:
    """What was granted, once it is committed: what ended the experiment in place of a trial must stay."""
    if not granted.suggestions.trials:
        raise _exhausted(granted.experiment)
    asked.expect_like(granted.experiment)
    return granted.suggestions


def _lease(ledger: Ledger, count: int, proposals: Sequence[Proposed]) -> list[StoredTrial]:
    """Freed trials first, then new ones; quasi-random where no proposal came."""
    trials = _claim_freed(ledger, count)
    wanted = min(count - len(trials), ledger.experiment.max_trials - ledger.experiment.trials_created)
    if wanted > 0:
        chosen = list(proposals[:wanted])
        trials += _start(ledger, chosen)
        trials += _start(ledger, _fallback(ledger.experiment, wanted - len(chosen)))
    return trials


def _claim_freed(ledger: Ledger, count: int) -> list[StoredTrial]:
    """Leases trials that were freed, the oldest first."""
    if not ledger.experiment.trials_queued:
        return []
    claimed = []
    for trial in ledger.trials_in(TrialState.QUEUED, limit=count):
        attempts = trial.attempts + 1
        lease, until = _new_lease(ledger, attempts)
        claimed.append(
            ledger.move_trial(trial, TrialState.RUNNING, attempts=attempts, lease=lease, lease_until=until, reason=None)
        )
    return claimed


def _start(ledger: Ledger, proposals: Sequence[Proposed]) -> list[StoredTrial]:
    """Creates trials that run at once, each under a lease of its own."""
    if proposals:
        outcomes.start_if_queued(ledger)
    started = []
    for proposed in proposals:
        lease, until = _new_lease(ledger, 1)
        started.append(start_trial(ledger, proposed, lease=lease, lease_until=until, worker=None))
    return started


def _suggestion(trial: StoredTrial) -> wire.Suggestion:
    assert trial.lease is not None
    assert trial.lease_until is not None
    return wire.Suggestion(
        id=trial.id,
        number=trial.number,
        hyperparameters=trial.hyperparameters,
        lr_schedule=LrSchedule.model_validate(trial.lr_schedule) if trial.lr_schedule else None,
        origin=trial.origin,
        predicted=wire.Prediction.model_validate(trial.predicted) if trial.predicted else None,
        lease=wire.Lease(token=trial.lease, expires_at=trial.lease_until),
    )


def _check_open(stored: StoredExperiment) -> None:
    if stored.mode != Mode.EXTERNAL:
        raise Conflict(
            "a managed experiment is trained by our workers; only external ones can be asked", code="managed"
        )
    if stored.state is ExperimentState.PAUSED:
        raise Conflict("the experiment is PAUSED: resume it to get more trials", code="experiment_paused")
    if stored.state is ExperimentState.COMPLETED:
        raise _exhausted(stored)
    if stored.state.finished:
        raise Conflict(f"the experiment is {stored.state}", code="experiment_finished")


def _exhausted(stored: StoredExperiment) -> BudgetExhausted:
    return BudgetExhausted(
        f"all {stored.max_trials} trials of the budget are out; raise budget.max_trials to get more"
        if not stored.state.finished
        else f"the experiment is {stored.state}: {stored.reason}"
    )


def _new_lease(ledger: Ledger, attempt: int) -> tuple[str, datetime]:
    until = ledger.now + timedelta(seconds=settings().foretune_lease_s)
    return f"{attempt}.{secrets.token_urlsafe(12)}", until
