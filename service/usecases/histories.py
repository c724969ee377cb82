"""Histories: what later experiments learn from. Finished experiments become histories, and others are imported.

A history belongs to its project, and to the experiment that it was made of: deleting the experiment is how a user
makes the service forget it, and takes the history along. Two that say the same are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import ValidationError

from foretune.errors import ForetuneError, InvalidHistory
from foretune.json_types import JsonObject
from foretune.metrics import Goal
from foretune.spaces import Space
from foretune.states import TrialState
from foretune.wire.histories import HistoryLine, HistoryTrial
from service.db import datasets as dataset_rows
from service.db import histories as history_rows
from service.db.datasets import StoredDataset
from service.db.experiments import StoredExperiment
from service.db.histories import StoredHistory
from service.db.session import Database, Transaction
from service.db.trials import StoredTrial
from service.usecases import submissions

MAX_TRIALS = 1000
"""Of a longer experiment a history keeps as many, evenly spread."""
MAX_POINTS = 500
"""Of a longer curve a history keeps as many, evenly spread."""
MAX_HISTORIES = 1000
"""At most so many, the newest, are read for one experiment."""
_DIGITS = 7
"""As many as a float32 holds."""
_AT_ONCE = 20


@dataclass(frozen=True)
class _Trial:
    """One result as a history keeps it. `value` None: infeasible."""

    configuration: JsonObject
    value: float | None
    state: TrialState
    seconds: float
    curve: list[float | None]


def compact_finished(database: Database, project: str | None = None) -> int:
    """Makes histories of finished experiments, of one project or all; how many experiments were looked at.

    Experiment by experiment in its own transaction with its mark: whoever dies in the middle leaves nothing half done,
    and several at once share the work.
    """
    done = 0
    while done < _AT_ONCE:
        with database.transaction() as tx:
            found = history_rows.finished_uncompacted(tx, project, 1)
            for experiment in found:
                _compact(tx, experiment)
                history_rows.mark_compacted(tx, experiment.id)
        if not found:
            break
        done += 1
    return done


def _compact(tx: Transaction, experiment: StoredExperiment) -> bool:
    """Writes the experiment's history unless it has no result to learn from."""
    every = max(1, -(-experiment.max_epochs // MAX_POINTS))
    stored = history_rows.result_trials(tx, experiment.id, MAX_TRIALS)
    curves = history_rows.curves(tx, experiment.id, [trial.id for trial in stored], every)
    found = [_of_stored(trial, curves[trial.id]) for trial in stored]
    head = {
        "network": experiment.network,
        "metric_name": experiment.metric_name,
        "goal": experiment.goal.value,
        "max_epochs": experiment.max_epochs,
        "space": experiment.space,
        "fixed": experiment.fixed,
        "features": task_features(tx, experiment),
    }
    tail = {
        "project_id": experiment.project_id,
        "experiment_id": experiment.id,
        "name": experiment.name,
        "dataset_id": experiment.dataset_id,
        "dataset_name": experiment.dataset_name,
        "curve_every": every,
        "share": experiment.share_history,
        "ended_at": experiment.finished_at,
    }
    return _write(tx, head, tail, found)


def _of_stored(trial: StoredTrial, curve: list[float | None]) -> _Trial:
    value = None if trial.state is TrialState.INFEASIBLE else trial.best_value
    return _Trial(trial.configuration, value, trial.state, trial.seconds, curve)


def _write(tx: Transaction, head: Mapping[str, object], tail: Mapping[str, object], found: Sequence[_Trial]) -> bool:
    """Whether it is new and has a result. `head` and the trials are what it says."""
    if not any(trial.value is not None for trial in found):
        return False
    names = dict.fromkeys(name for trial in found for name in trial.configuration)
    content: dict[str, object] = {
        **head,
        "configurations": {name: [trial.configuration.get(name) for trial in found] for name in names},
        "results": [_rounded(trial.value) for trial in found],
        "states": [trial.state.value for trial in found],
        "curves": [[_rounded(value) for value in trial.curve] for trial in found],
    }
    said = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    seconds = [_rounded(trial.seconds) for trial in found]
    row = {
        **content,
        **tail,
        "seconds": seconds,
        "trials": len(found),
        "fingerprint": hashlib.sha256(said).hexdigest(),
    }
    return history_rows.insert_unless_known(tx, row)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def task_features(tx: Transaction, experiment: StoredExperiment) -> dict[str, float | str]:
    """Numbers and words that describe the experiment's task: its data set's, or what its client said."""
    dataset = dataset_rows.find_by_id(tx, experiment.dataset_id) if experiment.dataset_id else None
    return {**(dataset_features(dataset) if dataset else {}), **experiment.features}


def dataset_features(dataset: StoredDataset) -> dict[str, float | str]:
    """The data set's meta-features, sizes, task and modality."""
    found: dict[str, float | str] = dict(dataset.meta_features)
    found |= {name: word for name in ("task", "modality") if (word := getattr(dataset, name))}
    return found | {name: float(n) for name in ("rows", "classes") if (n := getattr(dataset, name)) is not None}


def read_for(tx: Transaction, experiment: StoredExperiment) -> list[StoredHistory]:
    """What the experiment may learn from: what its project knew when it was submitted, or the priors that it names.

    The answer stays the same while the experiment runs, so every worker makes the same of it.
    """
    if experiment.priors == "none":
        return []
    named = None if isinstance(experiment.priors, str) else experiment.priors
    return history_rows.list_ended(
        tx, experiment.project_id, before=experiment.created_at, experiment_ids=named, limit=MAX_HISTORIES
    )


def read_some(tx: Transaction, project: str, fingerprints: Sequence[str]) -> list[StoredHistory]:
    """The project's histories with these fingerprints, as far as they are still there."""
    if not fingerprints:
        return []
    return history_rows.list_ended(tx, project, before=None, fingerprints=fingerprints, limit=MAX_HISTORIES)


def catch_up(database: Database, project: str, before: datetime | None = None) -> None:
    """Makes the histories that upkeep has not made yet of what ended by `before`."""
    while True:
        with database.reading() as tx:
            missing = history_rows.any_uncompacted(tx, project, before)
        if not missing or not compact_finished(database, project):
            return


def import_line(tx: Transaction, project: str, line: bytes) -> bool:
    """Keeps one finished experiment, a JSON object; False when it is known already. Raises InvalidHistory."""
    history, space, found = _parsed(line)
    goal = submissions.usual_goal(history.metric) if isinstance(history.metric, str) else history.metric.goal
    name = history.metric if isinstance(history.metric, str) else history.metric.name
    every = max(1, -(-history.max_epochs // MAX_POINTS))
    trials = _spread([_of_wire(trial, goal, every) for trial in found])
    if not any(trial.value is not None for trial in trials):
        raise InvalidHistory("trials: none of them has a value to learn from")
    dataset = dataset_rows.find(tx, project, history.dataset) if history.dataset else None
    features: dict[str, float | str] = {**(dataset_features(dataset) if dataset else {}), **history.features}
    head = {
        "network": history.network,
        "metric_name": name,
        "goal": goal.value,
        "max_epochs": history.max_epochs,
        "space": space.to_json(),
        "fixed": history.fixed,
        "features": dict(features),
    }
    tail = {
        "project_id": project,
        "experiment_id": None,
        "name": history.name,
        "dataset_id": dataset.id if dataset else None,
        "dataset_name": history.dataset,
        "curve_every": every,
        "share": True,
        "ended_at": datetime.now(UTC),
    }
    return _write(tx, head, tail, trials)


def _parsed(line: bytes) -> tuple[HistoryLine, Space, list[HistoryTrial]]:
    try:
        history = HistoryLine.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise InvalidHistory(f"the line is no JSON: {error}", code="invalid_json") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise InvalidHistory(f"{place}: {fault['msg'].removeprefix('Value error, ')}") from None
    try:
        space = Space(tuple(history.space))
    except ForetuneError as error:
        raise InvalidHistory(f"space: {error.message}", code="invalid_space") from None
    usable = [trial for trial in history.trials if trial.state in history_rows.RESULTS]
    for number, trial in enumerate(history.trials):
        try:
            space.check(trial.hyperparameters)
        except ForetuneError as error:
            raise InvalidHistory(f"trials.{number}: {error.message}", code="invalid_configuration") from None
    return history, space, usable


def _of_wire(trial: HistoryTrial, goal: Goal, every: int) -> _Trial:
    infeasible = trial.state is TrialState.INFEASIBLE
    values = [value for value in (*trial.curve, trial.value) if value is not None]
    best = None if infeasible or not values else max(values, key=lambda value: goal.sign * value)
    state = TrialState.INFEASIBLE if best is None else trial.state
    seconds = sum(second for second in trial.seconds or [] if second is not None)
    return _Trial(trial.hyperparameters, best, state, seconds, list(trial.curve[every - 1 :: every]))


def _spread(found: list[_Trial]) -> list[_Trial]:
    if len(found) <= MAX_TRIALS:
        return found
    return [found[position * len(found) // MAX_TRIALS] for position in range(MAX_TRIALS)]
