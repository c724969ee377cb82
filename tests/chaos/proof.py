"""What must hold whatever happened. Each function raises AssertionError with what does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta

from foretune.client import Client, Experiment
from foretune.events import Event, EventType
from foretune.states import ExperimentState, TrialState
from foretune.wire.trials import Measurement, Trial

Curve = list[tuple[int, float | None, dict[str, float]]]
Result = tuple[dict[str, object], str, float | None, Curve]
"""Hyperparameters, state, final value and curve of a trial."""


def results(client: Client, experiment: Experiment) -> list[Result]:
    """What an experiment came to, by number of the trial."""
    return [
        (dict(trial.hyperparameters), trial.state.value, trial.value, curve(client.trials.measurements(trial.id)))
        for trial in experiment.list_trials()
    ]


def curve(measurements: object) -> Curve:
    return [(one.epoch, one.value, one.metrics) for one in measurements]  # type: ignore[attr-defined]


def whole(events: Sequence[Event]) -> None:
    """The log counts from 1 without a gap, and ends with the end."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1)), "the log has a gap"
    assert events, "the log is empty"
    assert events[-1].type is EventType.EXPERIMENT_STATE
    assert ExperimentState(str(events[-1].data["state"])).finished


def epochs_once(trials: Sequence[Trial], measured: dict[str, list[Measurement]], events: Sequence[Event]) -> None:
    """Each trial measured the epochs 1..n, each once, and the log tells the same."""
    logged: dict[str, list[tuple[int, object]]] = defaultdict(list)
    for event in events:
        if event.type is EventType.TRIAL_MEASUREMENT:
            logged[str(event.data["trial"])].append((int(str(event.data["epoch"])), event.data["value"]))
    for trial in trials:
        rows = [(one.epoch, one.value) for one in measured[trial.id]]
        assert [epoch for epoch, _ in rows] == list(range(1, trial.epochs + 1)), f"trial {trial.number}: {rows}"
        assert logged[trial.id] == rows, f"trial {trial.number}: the log says {logged[trial.id]}, the rows {rows}"


def ended(experiment: Experiment, trials: Sequence[Trial]) -> None:
    """It ended well, and nothing of it is open."""
    info = experiment.info
    assert info.state is ExperimentState.COMPLETED, f"{info.state}: {info.reason}"
    still = [trial.number for trial in trials if not trial.state.finished]
    assert not still, f"trials {still} are open"
    failed = {trial.number: trial.reason for trial in trials if trial.state is TrialState.FAILED}
    assert not failed, f"trials failed: {failed}"
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))


def within_parallelism(experiment: Experiment, events: Sequence[Event]) -> None:
    """Never more trials at a time than allowed, as the log tells."""
    running: set[str] = set()
    for event in events:
        trial = str(event.data.get("trial"))
        if event.type is EventType.TRIAL_CREATED:
            running.add(trial)
        elif event.type is EventType.TRIAL_STATE:
            (running.add if event.data["state"] == TrialState.RUNNING else running.discard)(trial)
        assert len(running) <= experiment.info.parallelism, f"event {event.sequence}: {len(running)} trials run"


def within_budget(experiment: Experiment, trials: Sequence[Trial], measured: dict[str, list[Measurement]]) -> None:
    """No budget is overdrawn by more than one epoch of each slot."""
    info, budget = experiment.info, experiment.info.budget
    slots = info.parallelism
    assert len(trials) <= budget.max_trials
    assert all(trial.epochs <= budget.max_epochs for trial in trials)
    if budget.max_total_epochs is not None:
        assert sum(trial.epochs for trial in trials) <= budget.max_total_epochs + slots - 1
    rows = [one for of_trial in measured.values() for one in of_trial]
    if budget.target is not None:
        reached = [one.created_at for one in rows if one.value is not None and one.value >= budget.target]
        if reached:
            late = sum(one.created_at > min(reached) for one in rows)
            assert late <= slots, f"{late} epochs after the target was reached"
    if budget.max_seconds is not None and info.started_at is not None:
        over = info.started_at + timedelta(seconds=budget.max_seconds)
        late_by_trial = {name: sum(one.created_at > over for one in of_trial) for name, of_trial in measured.items()}
        assert all(count <= 1 for count in late_by_trial.values()), f"after its time was up: {late_by_trial}"
        assert sum(late_by_trial.values()) <= slots


def attempts(events: Sequence[Event]) -> Counter[str]:
    """How often a worker was lost, and how often a trial was taken up again."""
    counted: Counter[str] = Counter()
    for event in events:
        counted["worker.lost"] += event.type is EventType.WORKER_LOST
        if event.type is EventType.TRIAL_STATE and event.data["state"] == TrialState.RUNNING:
            counted["taken up again"] += 1
    return counted
