"""What a measurement or an ending means for a trial and its experiment. Managed and external trials share it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.metrics import Goal
from foretune.states import ExperimentState, TrialState
from service.db.ledger import Ledger
from service.db.trials import StoredTrial


@dataclass(frozen=True)
class Measured:
    """One epoch's report. `value` None: not a number."""

    epoch: int
    value: float | None
    seconds: float | None
    metrics: dict[str, float]


def known_epochs(ledger: Ledger, trial: StoredTrial, reports: Sequence[Measured]) -> set[int]:
    """The epochs of the trial that were told before; a report of new ones alone need not ask."""
    if all(report.epoch > trial.epochs for report in reports):
        return set()
    return ledger.epochs_measured([trial.id])[trial.id]


def measure(ledger: Ledger, trial: StoredTrial, reports: Sequence[Measured], known: set[int]) -> StoredTrial:
    """Writes what is new among `reports`, given the epochs that are `known`; the trial as it then is."""
    fresh = {report.epoch: report for report in reports if report.epoch not in known}
    if not fresh:
        return trial
    epochs_before = trial.epochs
    for epoch in sorted(fresh):
        trial = _measure_epoch(ledger, trial, fresh[epoch])
    ledger.change(epochs=ledger.experiment.epochs + trial.epochs - epochs_before)
    trial = ledger.update_trial(trial)
    _note_best(ledger, trial)
    return trial


def _measure_epoch(ledger: Ledger, trial: StoredTrial, report: Measured) -> StoredTrial:
    value = report.value if report.value is not None and math.isfinite(report.value) else None
    metrics = {name: number for name, number in report.metrics.items() if math.isfinite(number)}
    data: JsonObject = {
        "trial": trial.id,
        "number": trial.number,
        "epoch": report.epoch,
        "value": value,
        "seconds": report.seconds,
        "metrics": dict(metrics),
    }
    sequence = ledger.event(EventType.TRIAL_MEASUREMENT, data)
    ledger.add_measurement(
        {
            "trial_id": trial.id,
            "epoch": report.epoch,
            "seq": sequence,
            "value": value,
            "seconds": report.seconds,
            "metrics": metrics,
        }
    )
    newest = report.epoch >= trial.epochs
    trial = replace(
        trial,
        epochs=max(trial.epochs, report.epoch),
        value=value if newest else trial.value,
        seconds=trial.seconds + (report.seconds or 0.0),
    )
    if value is not None and ledger.experiment.goal.better(value, trial.best_value):
        trial = replace(trial, best_value=value, best_epoch=report.epoch)
    return trial


def _note_best(ledger: Ledger, trial: StoredTrial) -> None:
    best = ledger.experiment.best_value
    if trial.best_value is None or not ledger.experiment.goal.better(trial.best_value, best):
        return
    ledger.change(best_value=trial.best_value, best_epoch=trial.best_epoch, best_trial_id=trial.id)
    ledger.event(
        EventType.EXPERIMENT_BEST,
        {"trial": trial.id, "number": trial.number, "value": trial.best_value, "epoch": trial.best_epoch},
    )


def falls_behind(thresholds: Mapping[int, float], trial: StoredTrial, goal: Goal) -> bool:
    """Whether the trial's best value so far is worse than what its present epoch asks for."""
    threshold = thresholds.get(trial.epochs)
    return threshold is not None and (trial.best_value is None or goal.better(threshold, trial.best_value))


def finish_trial(
    ledger: Ledger,
    trial: StoredTrial,
    state: TrialState,
    *,
    value: float | None = None,
    reason: str | None = None,
) -> StoredTrial:
    """Ends a trial. `value` is its final value; without it the last measurement's stands."""
    final = trial.value if value is None else value
    best, best_epoch = best_with(trial, value, ledger.experiment.goal)
    finished = ledger.move_trial(
        trial,
        state,
        value=final,
        best_value=best,
        best_epoch=best_epoch,
        reason=reason,
        finished_at=ledger.now,
        lease_until=None,
    )
    _note_best(ledger, finished)
    return finished


def best_with(trial: StoredTrial, value: float | None, goal: Goal) -> tuple[float | None, int | None]:
    """A trial's best value and its epoch, if it ends with `value`."""
    if value is not None and goal.better(value, trial.best_value):
        return value, trial.epochs or None
    return trial.best_value, trial.best_epoch


def stop_early(ledger: Ledger, trial: StoredTrial) -> StoredTrial:
    """Ends a trial that fell behind."""
    reason = f"stopped early: behind the other trials at epoch {trial.epochs}"
    return finish_trial(ledger, trial, TrialState.STOPPED, reason=reason)


def pause(ledger: Ledger, trial: StoredTrial) -> StoredTrial:
    """Takes a trial out of its slot: it fell behind, or too few others came as far to tell."""
    reason = f"it goes on once it is among the best at epoch {trial.epochs}"
    return ledger.move_trial(trial, TrialState.PAUSED, reason=reason, lease_until=None, worker=None)


def stop_paused(ledger: Ledger) -> None:
    """Ends the trials that will not be thawed any more, and the experiment if none is left."""
    for trial in ledger.trials_in(TrialState.PAUSED):
        stop_early(ledger, trial)
    finish_experiment_if_due(ledger)


def free_trial(ledger: Ledger, trial: StoredTrial, reason: str) -> None:
    """Puts a running trial back, with its checkpoint, for whoever comes next."""
    ledger.move_trial(trial, TrialState.QUEUED, reason=reason, lease_until=None, worker=None)


def budget_reason(ledger: Ledger) -> str | None:
    """Why no more epochs may be trained; None while the budget lasts."""
    experiment = ledger.experiment
    best, target = experiment.best_value, experiment.target
    if target is not None and best is not None and not experiment.goal.better(target, best):
        return f"the target {experiment.target:g} is reached"
    if experiment.max_total_epochs is not None and experiment.epochs >= experiment.max_total_epochs:
        return f"the budget of {experiment.max_total_epochs} epochs is spent"
    limit, started = experiment.max_seconds, experiment.started_at
    if limit is not None and started is not None and (ledger.now - started).total_seconds() >= limit:
        return f"the budget of {limit:g} seconds is spent"
    return None


def finish_experiment_if_due(ledger: Ledger) -> bool:
    """Ends the experiment when its budget is spent or all its trials are done. Says whether it is finished."""
    if ledger.state.finished:
        return True
    reason = budget_reason(ledger)
    if reason is not None:
        end_open_trials(ledger, TrialState.STOPPED, reason)
        _complete(ledger, reason)
    elif ledger.experiment.trials_finished >= ledger.experiment.max_trials:
        _complete(ledger, f"all {ledger.experiment.max_trials} trials are done")
    return ledger.state.finished


def end_open_trials(ledger: Ledger, state: TrialState, reason: str) -> None:
    """Ends every trial that is not finished; one that never started is canceled."""
    for trial in ledger.trials_in(TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED):
        target = TrialState.CANCELED if trial.state is TrialState.QUEUED else state
        ledger.move_trial(trial, target, reason=reason, finished_at=ledger.now, lease_until=None)


def fail_experiment(ledger: Ledger, reason: str) -> None:
    """Ends the experiment for an error that no other trial would escape."""
    if ledger.state.finished:
        return
    end_open_trials(ledger, TrialState.CANCELED, reason)
    ledger.move(ExperimentState.FAILED, reason, finished_at=ledger.now)


def start_if_queued(ledger: Ledger) -> None:
    """The first trial of an experiment starts it."""
    if ledger.state is ExperimentState.QUEUED:
        ledger.move(ExperimentState.RUNNING, None, started_at=ledger.now)


def _complete(ledger: Ledger, reason: str) -> None:
    if ledger.experiment.best_value is None:
        failures = ledger.trials_in(TrialState.FAILED, TrialState.INFEASIBLE, limit=1)
        if failures:
            last = failures[-1]
            ledger.move(
                ExperimentState.FAILED,
                f"no trial gave a value; trial {last.number}: {last.reason}",
                finished_at=ledger.now,
            )
            return
    ledger.move(ExperimentState.COMPLETED, reason, finished_at=ledger.now)
