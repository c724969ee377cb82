"""Experiments: submit, read, steer, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from foretune.errors import Conflict, FieldError, InvalidExperiment, NotFound
from foretune.events import EventType
from foretune.spaces import Space
from foretune.states import ExperimentState, TrialState
from foretune.wire import experiments as wire
from foretune.wire.base import Page
from foretune.wire.experiments import ExperimentPatch, ExperimentRequest, LrSchedule, Mode
from service.bus import Bus
from service.bus.tasks import send
from service.db import experiments as experiment_rows
from service.db import trials as trial_rows
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger
from service.db.session import Transaction
from service.db.trials import StoredTrial
from service.usecases import outcomes, submissions
from service.usecases.paging import read_moment, write_cursor

_TRAINED_WHERE_PAUSED = 0.5
"""Of all epochs that trials might take, what jobs come to that pause trials: few of those are thawed (docs/LOG.md)."""
_NEARLY = 0.99
"""What is not over is not wholly done."""


def submit(tx: Transaction, bus: Bus, project: str, request: ExperimentRequest) -> wire.Experiment:
    """Writes the experiment and rings the workers. Raises InvalidExperiment, InvalidSpace."""
    stored = experiment_rows.insert_one(tx, submissions.build(tx, project, request))
    with Ledger(tx, stored, bus.publish, stored.created_at) as ledger:
        ledger.event(EventType.EXPERIMENT_STATE, {"state": stored.state.value, "reason": None})
        if stored.mode == Mode.MANAGED:
            ring(ledger)
    return to_wire(tx, [stored])[0].model_copy(update={"last_event": 1})


def get(tx: Transaction, project: str, experiment_id: str) -> wire.Experiment:
    """Raises NotFound."""
    return to_wire(tx, [find(tx, project, experiment_id)])[0]


def list_page(
    tx: Transaction,
    project: str,
    *,
    state: ExperimentState | None,
    label: tuple[str, str] | None,
    limit: int,
    cursor: str | None,
) -> Page[wire.Experiment]:
    """The newest first. `label`: (key, value). Raises InvalidRequest for a cursor that no page gave."""
    found = experiment_rows.list_newest(
        tx, project, state=state, label=label, before=read_moment(cursor, "exp_"), limit=limit + 1
    )
    items = to_wire(tx, found[:limit])
    more = len(found) > limit
    return Page(items=items, next=write_cursor((found[limit - 1].created_at, found[limit - 1].id)) if more else None)


def pause(tx: Transaction, bus: Bus, project: str, experiment_id: str) -> wire.Experiment:
    """Workers hand their trials back at the next epoch. Pausing what is paused changes nothing."""
    with Ledger.of_experiment(tx, experiment_id, project=project, wake=bus.publish) as ledger:
        if ledger.state is not ExperimentState.PAUSED:
            ledger.move(ExperimentState.PAUSED, "paused by request")
    return get(tx, project, experiment_id)


def resume(tx: Transaction, bus: Bus, project: str, experiment_id: str) -> wire.Experiment:
    """Goes on where it paused. Resuming what runs changes nothing."""
    with Ledger.of_experiment(tx, experiment_id, project=project, wake=bus.publish) as ledger:
        if ledger.state not in (ExperimentState.RUNNING, ExperimentState.QUEUED):
            started = ledger.experiment.started_at or ledger.now
            ledger.move(ExperimentState.RUNNING, None, started_at=started)
        if ledger.experiment.mode == Mode.MANAGED:
            ring(ledger)
    return get(tx, project, experiment_id)


def cancel(tx: Transaction, bus: Bus, project: str, experiment_id: str) -> wire.Experiment:
    """Ends it and keeps every result. Canceling what is canceled changes nothing."""
    with Ledger.of_experiment(tx, experiment_id, project=project, wake=bus.publish) as ledger:
        if ledger.state is not ExperimentState.CANCELED:
            if not ledger.state.finished:
                outcomes.end_open_trials(ledger, TrialState.CANCELED, "the experiment was canceled")
            ledger.move(ExperimentState.CANCELED, "canceled by request", finished_at=ledger.now)
    return get(tx, project, experiment_id)


def delete(tx: Transaction, project: str, experiment_id: str) -> list[str]:
    """Deletes a finished experiment; the artifacts that nobody refers to any more. Raises Conflict while it runs."""
    stored = find(tx, project, experiment_id)
    if not stored.state.finished:
        raise Conflict(
            f"experiment {experiment_id} is {stored.state}: cancel it before deleting it",
            code="experiment_not_finished",
        )
    orphans = trial_rows.artifacts_of(tx, experiment_id)
    experiment_rows.delete_one(tx, experiment_id)
    return orphans


def patch(tx: Transaction, bus: Bus, project: str, experiment_id: str, patch: ExperimentPatch) -> wire.Experiment:
    """Raises a budget, lifts its limits or widens the space.

    Raises InvalidExperiment for what narrows, Conflict when finished.
    """
    with Ledger.of_experiment(tx, experiment_id, project=project, wake=bus.publish) as ledger:
        stored = ledger.experiment
        changes: dict[str, object] = {
            field: getattr(patch, field)
            for field in ("name", "parallelism", "labels")
            if getattr(patch, field) is not None
        }
        if stored.state.finished and set(changes) - {"name", "labels"} | {
            field for field in ("budget", "space") if getattr(patch, field) is not None
        }:
            raise Conflict(
                f"experiment {experiment_id} is {stored.state}: only name and labels can change", code="finished"
            )
        if patch.space is not None:
            changes["space"] = _widened(stored, submissions.read_space(patch.space))
        if patch.budget is not None:
            changes.update(_raised(stored, patch.budget))
        if changes:
            ledger.change(**changes)
        if stored.mode == Mode.MANAGED and not stored.state.finished:
            ring(ledger)
    return get(tx, project, experiment_id)


def ring(ledger: Ledger, workers: int = 2) -> None:
    """Wakes up to `workers` workers for this experiment, after the commit."""
    experiment_id = ledger.experiment.id
    ledger.change(rung_at=ledger.now)

    def doorbell() -> None:
        for _ in range(workers):
            send("train.shift", experiment_id)

    ledger.tx.after_commit(doorbell, once=("shift", experiment_id))


def find(tx: Transaction, project: str, experiment_id: str) -> StoredExperiment:
    """Raises NotFound."""
    stored = experiment_rows.find(tx, project, experiment_id)
    if stored is None:
        raise NotFound(f"there is no experiment {experiment_id!r}")
    return stored


def to_wire(tx: Transaction, stored: Sequence[StoredExperiment]) -> list[wire.Experiment]:
    counts = experiment_rows.trial_counts(tx, [one.id for one in stored])
    best = trial_rows.get_many(tx, [one.best_trial_id for one in stored if one.best_trial_id])
    return [_to_wire(one, counts[one.id], best.get(one.best_trial_id or "")) for one in stored]


def _to_wire(one: StoredExperiment, counts: dict[str, int], best: StoredTrial | None) -> wire.Experiment:
    return wire.Experiment(
        id=one.id,
        name=one.name,
        state=one.state,
        mode=Mode(one.mode),
        created_at=one.created_at,
        started_at=one.started_at,
        finished_at=one.finished_at,
        reason=one.reason,
        dataset=one.dataset_name,
        network=one.network,
        metric=wire.Metric(name=one.metric_name, goal=one.goal),
        space=list(Space.from_json(one.space).parameters),
        fixed=one.fixed,
        budget=wire.Budget(
            max_trials=one.max_trials,
            max_epochs=one.max_epochs,
            max_total_epochs=one.max_total_epochs,
            max_seconds=one.max_seconds,
            target=one.target,
        ),
        stopping=wire.Stopping(one.stopping),
        proposer=wire.Proposer(one.proposer),
        priors=one.priors,
        parallelism=one.parallelism,
        seed=one.seed,
        share_history=one.share_history,
        labels=one.labels,
        features=one.features,
        progress=_progress(one, counts),
        best=_best(one, best),
        last_event=one.event_seq,
    )


def _progress(one: StoredExperiment, counts: dict[str, int]) -> wire.Progress:
    seconds = 0.0
    if one.started_at is not None:
        seconds = ((one.finished_at or datetime.now(UTC)) - one.started_at).total_seconds()
    epochs = one.max_trials * one.max_epochs * (_TRAINED_WHERE_PAUSED if one.trials_paused else 1.0)
    spent = [one.trials_finished / one.max_trials, one.epochs / epochs]
    if one.max_total_epochs:
        spent.append(one.epochs / one.max_total_epochs)
    if one.max_seconds:
        spent.append(seconds / one.max_seconds)
    fraction = 1.0 if one.state is ExperimentState.COMPLETED else min(max(spent), _NEARLY)
    running = one.state is ExperimentState.RUNNING and fraction > 0
    eta = seconds * (1.0 - fraction) / fraction if running else None
    return wire.Progress(trials=counts, epochs=one.epochs, seconds=seconds, fraction=fraction, eta_seconds=eta)


def _best(one: StoredExperiment, best: StoredTrial | None) -> wire.Best | None:
    if best is None or one.best_value is None:
        return None
    return wire.Best(
        trial=best.id,
        number=best.number,
        value=one.best_value,
        epoch=one.best_epoch,
        hyperparameters=best.hyperparameters,
        lr_schedule=LrSchedule.model_validate(best.lr_schedule) if best.lr_schedule else None,
    )


def _widened(stored: StoredExperiment, wider: Space) -> object:
    faults = Space.from_json(stored.space).widening_faults(wider)
    if faults:
        located = [FieldError(("body", "space", *fault.loc), fault.msg) for fault in faults]
        raise InvalidExperiment(faults[0].msg, errors=located)
    submissions.check_schedule(wider, stored.fixed)
    return wider.to_json()


def _raised(stored: StoredExperiment, budget: wire.BudgetPatch) -> dict[str, object]:
    changes: dict[str, object] = {}
    for field in ("max_trials", "max_epochs", "max_total_epochs", "max_seconds"):
        if field not in budget.model_fields_set:
            continue
        value, now = getattr(budget, field), getattr(stored, field)
        # Null is no limit, which the wire model allows where there may be none.
        if value is not None and (now is None or value < now):
            message = f"{field} can only be raised: it is {'unlimited' if now is None else now}, not above {value}"
            raise InvalidExperiment(message, errors=[FieldError(("body", "budget", field), message)])
        changes[field] = value
    if "target" in budget.model_fields_set:
        if budget.target is not None and (stored.target is None or stored.goal.better(stored.target, budget.target)):
            held = "there is none" if stored.target is None else f"it is {stored.target:g}"
            message = f"target can only be made harder: {held}, not {budget.target:g}"
            raise InvalidExperiment(message, errors=[FieldError(("body", "budget", "target"), message)])
        changes["target"] = budget.target
    return changes
