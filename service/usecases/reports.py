"""What the client of an external experiment tells: measurements, signs of life, endings.

Each is work on a ledger that has read the trial; what it refuses, it refuses before it notes anything.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from foretune.errors import Conflict, FieldError, InvalidRequest, LeaseLost
from foretune.states import TrialState
from foretune.wire import trials as wire
from foretune.wire.experiments import Mode, Stopping
from foretune.wire.trials import CompleteRequest, Decision, HeartbeatRequest, MeasurementsRequest
from service.bus import Bus
from service.db import stopping as stopping_rows
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger
from service.db.trials import StoredTrial
from service.settings import settings
from service.usecases import outcomes
from service.usecases.outcomes import Measured
from service.usecases.proposals import ToldEnding
from service.usecases.trials import to_wire

_THRESHOLDS_EVERY_S = 1.0
_THRESHOLDS_FRESH_S = 0.1
"""As old may be what a decision is made by; workers that train take no fresher ones (`workers.proposals`)."""
_REMEMBERED_EXPERIMENTS = 10_000
_asked_for_thresholds: dict[str, float] = {}
_thresholds: dict[str, tuple[float, Mapping[int, float]]] = {}
"""Experiment -> when its thresholds were read, and what they are."""

_ENDINGS = {
    "completed": TrialState.COMPLETED,
    "infeasible": TrialState.INFEASIBLE,
    "failed": TrialState.FAILED,
}


def record(ledger: Ledger, bus: Bus, trial_id: str, request: MeasurementsRequest) -> wire.MeasurementsAnswer:
    """Writes a batch of measurements, each epoch once, extends the lease and decides whether to go on.

    Raises NotFound, LeaseLost, Conflict `trial_finished`, InvalidRequest for an epoch beyond the budget.
    """
    trial = _leased(ledger, trial_id, request.lease)
    _running(trial)
    reports = [Measured(one.epoch, one.value, one.seconds, one.metrics) for one in request.measurements]
    _within_budget(trial, reports)
    known = outcomes.known_epochs(ledger, trial, reports)
    trial = outcomes.measure(ledger, trial, reports, known)
    if outcomes.finish_experiment_if_due(ledger):
        return _answer(Decision.STOP, request.lease, ledger.now)
    expires_at = _expiry(ledger)
    trial = ledger.update_trial(trial, lease_until=expires_at)
    decision = _decide(ledger, trial, reports)
    _ask_for_thresholds(bus, ledger)
    return _answer(decision, request.lease, expires_at)


def heartbeat(ledger: Ledger, trial_id: str, request: HeartbeatRequest) -> wire.HeartbeatAnswer:
    """Extends the lease. Raises NotFound, LeaseLost, Conflict `trial_finished`."""
    trial = _leased(ledger, trial_id, request.lease)
    _running(trial)
    expires_at = _expiry(ledger)
    ledger.update_trial(trial, lease_until=expires_at)
    return wire.HeartbeatAnswer(lease=wire.Lease(token=request.lease, expires_at=expires_at))


def complete(ledger: Ledger, trial_id: str, request: CompleteRequest) -> wire.Trial:
    """Ends a trial. The same ending again, by the same lease, gets the same answer.

    Raises NotFound, LeaseLost, Conflict `trial_finished`, InvalidRequest when there is no value to complete with.
    """
    trial = _leased(ledger, trial_id, request.lease)
    state = _ENDINGS[request.outcome]
    told_to_stop = trial.state is TrialState.STOPPED and state is TrialState.COMPLETED
    if told_to_stop or (trial.state is state and request.value in (None, trial.value)):
        return to_wire(trial)
    _running(trial)
    if _lacks_value(trial, state, request):
        message = "is missing: no measurement with a value was reported; send one, or an outcome with a reason"
        raise InvalidRequest(f"value {message}", errors=[FieldError(("body", "value"), message)])
    finished = outcomes.finish_trial(ledger, trial, state, value=request.value, reason=request.reason)
    outcomes.finish_experiment_if_due(ledger)
    return to_wire(finished)


def foretold(experiment: StoredExperiment, trial: StoredTrial, request: CompleteRequest) -> ToldEnding | None:
    """What `complete` will write of this trial; None where it may refuse, or write nothing."""
    state = _ENDINGS[request.outcome]
    refused = not _holds(trial, request.lease) or _lacks_value(trial, state, request)
    if trial.state is not TrialState.RUNNING or refused:
        return None
    best, _ = outcomes.best_with(trial, request.value, experiment.goal)
    return ToldEnding(trial.id, state, best)


def _lacks_value(trial: StoredTrial, state: TrialState, request: CompleteRequest) -> bool:
    return state is TrialState.COMPLETED and request.value is None and trial.value is None


def _leased(ledger: Ledger, trial_id: str, token: str) -> StoredTrial:
    trial = ledger.trial(trial_id)
    if ledger.experiment.mode != Mode.EXTERNAL:
        raise Conflict("a managed trial is reported by its worker, not by a client", code="managed_trial")
    if not _holds(trial, token):
        raise LeaseLost()
    return trial


def _holds(trial: StoredTrial, token: str) -> bool:
    return trial.lease is not None and hmac.compare_digest(trial.lease.encode(), token.encode())


def _running(trial: StoredTrial) -> None:
    if trial.state.finished:
        because = f": {trial.reason}" if trial.reason else ""
        raise Conflict(f"the trial is {trial.state}{because}; nothing was written", code="trial_finished")
    if trial.state is not TrialState.RUNNING:
        raise LeaseLost("the lease ran out and the trial was freed; nothing was written")


def _within_budget(trial: StoredTrial, reports: list[Measured]) -> None:
    for position, report in enumerate(reports):
        if report.epoch > trial.max_epochs:
            message = f"epoch {report.epoch} lies beyond the budget of {trial.max_epochs} epochs a trial"
            raise InvalidRequest(message, errors=[FieldError(("body", "measurements", position, "epoch"), message)])


def _decide(ledger: Ledger, trial: StoredTrial, reports: list[Measured]) -> Decision:
    """Whether the client goes on. A trial that falls behind ends here: completing it later changes nothing."""
    last = max(reports, key=lambda report: report.epoch)
    if last.value is None or trial.epochs >= trial.max_epochs:
        return Decision.STOP
    if ledger.experiment.stopping == Stopping.NONE:
        return Decision.CONTINUE
    if not outcomes.falls_behind(_thresholds_of(ledger), trial, ledger.experiment.goal):
        return Decision.CONTINUE
    outcomes.stop_early(ledger, trial)
    outcomes.finish_experiment_if_due(ledger)
    return Decision.STOP


def _thresholds_of(ledger: Ledger) -> Mapping[int, float]:
    now, experiment_id = time.monotonic(), ledger.experiment.id
    read_at, thresholds = _thresholds.get(experiment_id, (-1e9, {}))
    if now - read_at > _THRESHOLDS_FRESH_S:
        if len(_thresholds) > _REMEMBERED_EXPERIMENTS:
            _thresholds.clear()
        thresholds = stopping_rows.thresholds(ledger.tx, experiment_id)
        _thresholds[experiment_id] = now, thresholds
    return thresholds


def _ask_for_thresholds(bus: Bus, ledger: Ledger) -> None:
    """Has a desk worker compute the stopping thresholds anew, at most once a second for each experiment."""
    experiment_id = ledger.experiment.id
    if ledger.experiment.stopping == Stopping.NONE:
        return
    now = time.monotonic()
    if now - _asked_for_thresholds.get(experiment_id, -1e9) < _THRESHOLDS_EVERY_S:
        return
    if len(_asked_for_thresholds) > _REMEMBERED_EXPERIMENTS:
        _asked_for_thresholds.clear()
    _asked_for_thresholds[experiment_id] = now
    ledger.tx.after_commit(lambda: bus.notify("stopping", {"experiment": experiment_id}))


def _expiry(ledger: Ledger) -> datetime:
    return ledger.now + timedelta(seconds=settings().foretune_lease_s)


def _answer(decision: Decision, token: str, expires_at: datetime) -> wire.MeasurementsAnswer:
    return wire.MeasurementsAnswer(decision=decision, lease=wire.Lease(token=token, expires_at=expires_at))
