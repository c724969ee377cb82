"""Recommendations, from values of the meta-learner to what the API answers."""

from __future__ import annotations

from foretune.json_types import JsonObject
from foretune.states import TrialState
from metalearner import Problem, recommend
from metalearner.values import Recommendation
from service.usecases.proposals import StoredTrial
from workers.proposals import Proposals


def recommend_for_experiment(proposals: Proposals, experiment_id: str, payload: JsonObject) -> JsonObject:
    """`{"confidence", "items": [{"configuration", "origin", "predicted", "trial"}]}` from the experiment's own results.

    `payload`: `experiment`, `count`. Raises NotFound.
    """
    problem, observations, trials = proposals.observed(experiment_id)
    count = payload.get("count", 3)
    found = recommend(problem, observations, problem.defaults, count if isinstance(count, int) else 3)
    return {
        "confidence": found.confidence.value,
        "items": [_item(problem, one, trials) for one in found.items],
    }


def _item(problem: Problem, one: Recommendation, trials: dict[str, StoredTrial]) -> JsonObject:
    predicted: JsonObject | None = None
    if one.predicted is not None:
        predicted = {"median": one.predicted.median, "low": one.predicted.low, "high": one.predicted.high}
    return {
        "configuration": one.configuration,
        "origin": one.origin.value,
        "predicted": predicted,
        "trial": _trial_of(problem, one, trials),
    }


def _trial_of(problem: Problem, one: Recommendation, trials: dict[str, StoredTrial]) -> str | None:
    """The best trial that ran with exactly this configuration."""
    same = [
        trial
        for trial in trials.values()
        if trial.state is TrialState.COMPLETED
        and trial.best_value is not None
        and trial.configuration == one.configuration
    ]
    if not same:
        return None
    return max(same, key=lambda trial: problem.goal.sign * (trial.best_value or 0.0)).id
