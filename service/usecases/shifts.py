"""A worker's shift on a managed experiment: claim trials, report epochs, hand back.

A worker holds a trial as long as its lease lasts and its fencing token (`attempts`) is the newest; what a late writer
sends is refused trial by trial, and the rest of its report is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from foretune.errors import NotFound
from foretune.json_types import JsonObject
from foretune.states import ExperimentState, TrialState
from service.bus import Bus
from service.db import datasets as dataset_rows
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db import workers as worker_rows
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger
from service.db.session import Transaction
from service.db.trials import StoredTrial
from service.db.workers import Company
from service.settings import settings
from service.usecases import experiments, outcomes
from service.usecases.outcomes import Measured
from service.usecases.trials import Proposed, start_trial

MAX_FAILED_SHIFTS = 8
"""As often as upkeep tries a trial whose workers die (`upkeep.MAX_ATTEMPTS`)."""
_SEEN_WITHIN = timedelta(seconds=6)
"""Workers sign every two seconds; one that did not for so long is not waited for."""


@dataclass(frozen=True)
class Claim:
    """What a worker got: trials that it now holds, and how many more it may thaw or propose."""

    experiment: StoredExperiment
    trials: list[StoredTrial]
    open_slots: int
    left_over: bool = False
    """There was more than this worker's share; the others were told."""


@dataclass(frozen=True)
class TrialReport:
    """What happened to one trial since the last report."""

    trial_id: str
    attempts: int
    measured: Sequence[Measured] = ()
    checkpoint: JsonObject | None = None
    """`{"epoch", "artifact"}` when a newer one was kept."""
    finished: bool = False
    """It has trained its last epoch."""
    infeasible: str | None = None
    failed: str | None = None


class Verdict(StrEnum):
    """What the worker does with a trial next."""

    CONTINUE = "continue"
    STOP = "stop"
    """Ended, or paused: release its slot."""
    LOST = "lost"
    """Somebody else's by now: forget it."""


@dataclass(frozen=True)
class ReportAnswer:
    state: ExperimentState
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    """The trials whose checkpoint was written down."""


def open_work(tx: Transaction) -> dict[str, str]:
    """The experiments on which one more worker could do something, and their projects; the oldest first."""
    return dict(experiment_rows.with_open_work(tx))


def claim(
    tx: Transaction,
    bus: Bus,
    experiment_id: str,
    worker: str,
    slots: int,
    *,
    leave: bool = False,
    narrow: bool = False,
) -> Claim | None:
    """Takes up to `slots` trials that wait, within the experiment's parallelism. None when there is nothing to do.

    `leave`: no more than an equal share of what may run at a time, where other workers are on the experiment or idle.
    `narrow`: half as many at a time as may run, but one for each worker: who shares a core with fewer ends sooner.
    Raises NotFound when the experiment was deleted.
    """
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger:
        if ledger.state not in (ExperimentState.QUEUED, ExperimentState.RUNNING):
            return None
        if outcomes.finish_experiment_if_due(ledger):
            return None
        now = ledger.experiment
        company = worker_rows.company(tx, now.id, worker, _SEEN_WITHIN) if leave or narrow else None
        abreast = _abreast(now.parallelism, company) if narrow and company else now.parallelism
        free = min(abreast - now.trials_running, now.trials_to_run)
        if free <= 0:
            return None
        allowed, idle = _share(now, abreast, company) if leave and company else (free, 0)
        mine = min(slots, free, allowed)
        left_over = allowed < min(slots, free)
        waiting = ledger.trials_in(TrialState.QUEUED, limit=mine) if now.trials_queued and mine > 0 else []
        taken = [_take(ledger, trial, worker) for trial in waiting]
        if taken:
            outcomes.start_if_queued(ledger)
        if left_over:
            experiments.ring(ledger, workers=max(1, min(idle, free - max(mine, 0))))
        return Claim(ledger.experiment, taken, max(0, min(mine, now.trials_to_run) - len(taken)), left_over)


def _abreast(parallelism: int, company: Company) -> int:
    """How many trials run at a time where half of those that may are enough to keep every worker busy."""
    return min(parallelism, max(-(-parallelism // 2), 1 + company.beside + company.idle))


def _share(now: StoredExperiment, abreast: int, company: Company) -> tuple[int, int]:
    """How many more trials this worker may take, were all that may run at a time spread evenly over those who could;
    and how many of those are idle.
    """
    at_a_time = min(abreast, now.trials_running + now.trials_to_run)
    return -(-at_a_time // (1 + company.beside + company.idle)) - company.held, company.idle


def start(
    tx: Transaction, bus: Bus, experiment_id: str, worker: str, proposals: Sequence[Proposed]
) -> list[StoredTrial]:
    """Creates trials that this worker holds, as many as budget and parallelism still allow.

    None when somebody else created trials since the proposals were made: they know nothing of those, and may be the
    same.
    """
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger:
        if ledger.state not in (ExperimentState.QUEUED, ExperimentState.RUNNING):
            return []
        now = ledger.experiment
        room = min(now.parallelism - now.trials_running, now.max_trials - now.trials_created)
        chosen = proposals[: max(room, 0)]
        if not chosen or chosen[0].replay.get("index") != now.trials_created:
            return []
        outcomes.start_if_queued(ledger)
        return [
            start_trial(ledger, proposed, lease=None, lease_until=_expiry(ledger), worker=worker) for proposed in chosen
        ]


def thaw(
    tx: Transaction, bus: Bus, experiment_id: str, worker: str, trial_ids: Sequence[str], slots: int, seen: int
) -> list[StoredTrial]:
    """Takes up to `slots` of the paused trials that are worth going on with, the first of them first.

    Where none is and nothing else is left to do, the paused ones are ended: as long as nothing happened after event
    `seen`, up to which they were judged. Raises NotFound when the experiment was deleted.
    """
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish, reads=trial_ids) as ledger:
        if ledger.state is not ExperimentState.RUNNING:
            return []
        now = ledger.experiment
        if not trial_ids and now.event_seq == seen and now.trials_paused + now.trials_finished == now.max_trials:
            outcomes.stop_paused(ledger)
            return []
        found = ledger.known
        paused = [found[one] for one in trial_ids if one in found and found[one].state is TrialState.PAUSED]
        return [
            _take(ledger, trial, worker) for trial in paused[: max(0, min(slots, now.parallelism - now.trials_running))]
        ]


def report(
    tx: Transaction,
    bus: Bus,
    experiment_id: str,
    reports: Sequence[TrialReport],
    thresholds: Mapping[int, float],
    *,
    pauses: bool = False,
) -> ReportAnswer:
    """Writes what happened, in one transaction with the event log, and says what to do with each trial.

    `thresholds`: the stopping policy's, from `metalearner`. `pauses`: who falls behind is paused, not ended.
    Raises NotFound when the experiment was deleted.
    """
    reads = [one.trial_id for one in reports]
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish, reads=reads) as ledger:
        if ledger.experiment.failed_shifts and any(one.measured for one in reports):
            ledger.change(failed_shifts=0)
        verdicts, kept = {}, set()
        for one in reports:
            trial = ledger.known.get(one.trial_id)
            if trial is None or trial.attempts != one.attempts or trial.state is not TrialState.RUNNING:
                stopped = trial is not None and trial.attempts == one.attempts and trial.state.finished
                verdicts[one.trial_id] = Verdict.STOP if stopped else Verdict.LOST
                continue
            verdicts[one.trial_id] = _report_one(ledger, trial, one, thresholds, pauses=pauses)
            if one.checkpoint is not None:
                kept.add(trial.id)
        if outcomes.finish_experiment_if_due(ledger):
            verdicts = {
                trial_id: Verdict.LOST if verdict is Verdict.LOST else Verdict.STOP
                for trial_id, verdict in verdicts.items()
            }
        return ReportAnswer(ledger.state, verdicts, frozenset(kept))


def hand_back(tx: Transaction, bus: Bus, experiment_id: str, trials: Mapping[str, int], *, again: bool) -> None:
    """Frees the trials (`{trial_id: attempts}`) that this worker still holds; `again` rings for another shift."""
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger:
        _free(ledger, trials)
        if again and ledger.state in (ExperimentState.QUEUED, ExperimentState.RUNNING):
            experiments.ring(ledger, workers=1)


def abandon(tx: Transaction, bus: Bus, experiment_id: str, trials: Mapping[str, int], why: str) -> None:
    """Frees the trials after an error of our own. Upkeep rings again in a while; what fails every time ends FAILED."""
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger:
        _free(ledger, trials)
        if ledger.state.finished:
            return
        failed = ledger.experiment.failed_shifts + 1
        ledger.change(failed_shifts=failed)
        if failed >= MAX_FAILED_SHIFTS:
            outcomes.fail_experiment(ledger, f"workers failed on it {failed} times in a row, the last time by {why}")


def fail(tx: Transaction, bus: Bus, experiment_id: str, reason: str) -> None:
    """Ends the experiment for an error that no other trial would escape."""
    with Ledger.of_experiment(tx, experiment_id, project=None, wake=bus.publish) as ledger:
        outcomes.fail_experiment(ledger, reason)


def dataset_artifact(tx: Transaction, dataset_id: str) -> str:
    """The key of a data set's canonical form. Raises NotFound when it was deleted or is not ready."""
    stored = dataset_rows.find_by_id(tx, dataset_id)
    if stored is None or stored.artifact is None:
        raise NotFound(f"there is no data set {dataset_id!r} to train on")
    return stored.artifact


def extend(tx: Transaction, leases: Mapping[str, int]) -> set[str]:
    """A sign of life for trials (`{trial_id: attempts}`); the ids that this worker still holds."""
    return trial_rows.extend_leases(tx, leases, settings().foretune_worker_lease_s)


def _free(ledger: Ledger, trials: Mapping[str, int]) -> None:
    held = ledger.trials(list(trials))
    for trial_id, attempts in sorted(trials.items()):
        trial = held.get(trial_id)
        if trial is not None and trial.attempts == attempts and trial.state is TrialState.RUNNING:
            outcomes.free_trial(ledger, trial, "handed back by its worker")


def _take(ledger: Ledger, trial: StoredTrial, worker: str) -> StoredTrial:
    return ledger.move_trial(
        trial,
        TrialState.RUNNING,
        attempts=trial.attempts + 1,
        lease_until=_expiry(ledger),
        worker=worker,
        reason=None,
    )


def _report_one(
    ledger: Ledger,
    trial: StoredTrial,
    one: TrialReport,
    thresholds: Mapping[int, float],
    *,
    pauses: bool,
) -> Verdict:
    known = outcomes.known_epochs(ledger, trial, one.measured)
    trial = outcomes.measure(ledger, trial, one.measured, known)
    trial = ledger.update_trial(trial, lease_until=_expiry(ledger), checkpoint=one.checkpoint or trial.checkpoint)
    if one.failed is not None:
        outcomes.finish_trial(ledger, trial, TrialState.FAILED, reason=one.failed)
    elif one.infeasible is not None:
        outcomes.finish_trial(ledger, trial, TrialState.INFEASIBLE, reason=one.infeasible)
    elif one.finished:
        outcomes.finish_trial(ledger, trial, TrialState.COMPLETED)
    elif outcomes.falls_behind(thresholds, trial, ledger.experiment.goal):
        (outcomes.pause if pauses else outcomes.stop_early)(ledger, trial)
    else:
        return Verdict.CONTINUE
    return Verdict.STOP


def _expiry(ledger: Ledger) -> datetime:
    return ledger.now + timedelta(seconds=settings().foretune_worker_lease_s)
