"""What to use in the end: what measured best, and what the surrogate expects to be better still.

Every candidate is ranked by what the process expects of it, with one deviation of its own uncertainty as a penalty: a
measured setting with neighbours that agree stands before a lucky one, and before a promise that nobody has tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretune.metrics import Goal
from foretune.spaces import Configuration
from metalearner import cold_gp
from metalearner.arrays import Array
from metalearner.cold_gp import Surrogate
from metalearner.encoding import is_among
from metalearner.memory import History, Memory
from metalearner.outcomes import prediction
from metalearner.search import SearchPlan, search
from metalearner.values import Confidence, Effort, Observation, Origin, Problem, Recommendation, Recommendations

_FEW = 2
"""Below this many feasible results there is nothing to fit."""
_PLAN = SearchPlan(512, 1024, 6, 6, 48)
_SURE_FROM = 10


def recommend(
    problem: Problem,
    observations: Sequence[Observation],
    defaults: Configuration | None,
    count: int,
    *,
    memory: Memory | None = None,
) -> Recommendations:
    """At most `count` settings, the best first, from this experiment's own results.

    `defaults` is the expert's choice, recommended when nothing was measured; without it and without results there is
    nothing to recommend. Confidence is `none` without results, `high` when enough of them cover the space.
    """
    memory = memory or Memory()
    history = memory.history(problem, observations)
    feasible = int(np.isfinite(history.losses).sum())
    if feasible == 0:
        items = (Recommendation(defaults, None, Origin.DEFAULT),) if defaults is not None else ()
        return Recommendations(items, Confidence.NONE)
    seen = _best_seen(history, problem.goal, count)
    if feasible < _FEW:
        return Recommendations(tuple(item for _, item in seen[:count]), Confidence.LOW)
    settings = cold_gp.settings_for(
        *(Effort.THOROUGH, history.encoding), informed=problem.defaults is not None, prior_mean=problem.prior_mean
    )
    model = cold_gp.surrogate(history, memory, settings)
    ranked = _judged(model, history, problem.goal, [*seen, *_best_predicted(history, model, problem)])
    sure = feasible >= max(_SURE_FROM, 2 * history.encoding.width)
    return Recommendations(_both_kinds(ranked, count), Confidence.HIGH if sure else Confidence.LOW)


def _both_kinds(ranked: Sequence[Recommendation], count: int) -> tuple[Recommendation, ...]:
    """The first `count`; the last of them gives way where they would all be seen, or all be predicted."""
    chosen = list(ranked[:count])
    rest = [one for one in ranked[count:] if one.origin not in {other.origin for other in chosen}]
    if count > 1 and rest:
        chosen[-1] = rest[0]
    return tuple(chosen)


def _best_seen(history: History, goal: Goal, count: int) -> list[tuple[Array, Recommendation]]:
    """The best different configurations that were measured."""
    found: list[tuple[Array, Recommendation]] = []
    for position in np.argsort(history.losses, kind="stable"):
        loss, row = float(history.losses[position]), history.rows[position]
        if len(found) == count or not np.isfinite(loss):
            break
        if found and is_among(row, np.array([other for other, _ in found])):
            continue
        item = Recommendation(history.encoding.decode(row), None, Origin.BEST_SEEN, value=-goal.sign * loss)
        found.append((row, item))
    return found


def _best_predicted(history: History, model: Surrogate, problem: Problem) -> list[tuple[Array, Recommendation]]:
    """The untried configuration that the process expects most of, if it expects anything of one."""

    def pessimistic(rows: Array) -> Array:
        mean, variance = model.predict(rows)
        return -(mean + np.sqrt(variance))

    generator = np.random.default_rng([problem.seed % 2**63, len(history)])
    rows, _ = search(pessimistic, model.encoding, model.incumbents, generator, _PLAN)
    for row in rows[: _PLAN.neighbours]:
        if not history.has(row):
            return [(row, Recommendation(model.encoding.decode(row), None, Origin.BEST_PREDICTED))]
    return []


def _judged(
    model: Surrogate, history: History, goal: Goal, candidates: Sequence[tuple[Array, Recommendation]]
) -> list[Recommendation]:
    """The candidates with their predictions, the best first."""
    rows = np.array([row for row, _ in candidates])
    means, variances = model.predict(rows)
    order = np.argsort(means + np.sqrt(variances), kind="stable")
    noise = model.posterior.kernel.noise
    judged = []
    for position in order:
        item = candidates[position][1]
        variance = float(variances[position]) + noise
        predicted = prediction(model.scale, goal, float(means[position]), variance, history.step)
        judged.append(Recommendation(item.configuration, predicted, item.origin, item.value))
    return judged
