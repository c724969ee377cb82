"""What to use on a task before any trial of it has run, with what the histories lead one to expect of it.

A setting's outcome is a mixture over the histories of the same metric: a history's own process says how the setting
ranks there, likeness says how surely that carries over, and the history's own outcomes turn ranks into values. How far
such forecasts were wrong on histories that were held out stretches the interval (`metalearner.intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metalearner.arrays import Array
from metalearner.fitted import FittedModel, Residuals
from metalearner.hearing import SAME_DATA, Hearing, hear
from metalearner.histories import Task, TaskHistory, source
from metalearner.intervals import Forecast
from metalearner.outcomes import plausible
from metalearner.portfolio import Judged, candidates, item_of, select
from metalearner.values import Confidence, PortfolioItem, Prediction, Problem

_VERY_ALIKE = 0.5
_SURE_TRIALS = 10
_SURE_HISTORIES = 5
_SURE_SCORE = -0.5
_HELD_OUT = 3
"""So many of a history's own trials stand for what would have been recommended to it."""


@dataclass(frozen=True)
class Foreseen:
    """A setting that did well on histories, and the value that it should reach, where they tell."""

    item: PortfolioItem
    predicted: Prediction | None


def foresee(
    problem: Problem,
    task: Task,
    histories: Sequence[TaskHistory],
    weights: Sequence[float] | Array,
    count: int,
    model: FittedModel | None = None,
) -> tuple[list[Foreseen], Confidence]:
    """At most `count` settings, what is expected to be best first; none, and confidence `none`, where no history says
    anything good about the problem's space. `weights`: how like the task each history is.

    Confidence is `high` where the same data, or several tasks very like it, agree on the first setting.
    """
    model = model or FittedModel()
    hearing = hear(problem, histories, weights, model)
    if hearing is None:
        return [], Confidence.NONE
    rows = candidates(hearing.sources, hearing.encoding, problem)
    if not len(rows):
        return [], Confidence.NONE
    judged = hearing.judged(rows)
    expected = judged.weights @ judged.penalised  # (C,)
    places = sorted(select(judged, count, by_regret=False), key=lambda place: (expected[place], place))
    predictions = _predictions(hearing, judged.rows[places], task, model)
    items = [Foreseen(item_of(judged, place), predicted) for place, predicted in zip(places, predictions, strict=True)]
    return items, Confidence.HIGH if _is_sure(judged, expected[places[0]]) else Confidence.LOW


def residuals(
    history: TaskHistory, others: Sequence[TaskHistory], weights: Sequence[float] | Array, model: FittedModel
) -> Residuals:
    """Where a history's own outcomes fell in what the others foresee of it, with those of the same data and without.

    Of its trials those count that the others would have recommended. None where the others do not tell.
    """
    same = np.array([history.task.dataset is not None and one.task.dataset == history.task.dataset for one in others])
    weights = np.array(weights, dtype=np.float64)
    same &= weights > 0.0
    return Residuals(
        other=_residuals(history, others, np.where(same, 0.0, weights), model),
        same=_residuals(history, others, weights, model) if same.any() else (),
    )


def _residuals(
    history: TaskHistory, others: Sequence[TaskHistory], weights: Array, model: FittedModel
) -> tuple[float, ...]:
    problem = Problem(history.space, history.task.goal, max_epochs=1, max_trials=1, seed=0)
    hearing = hear(problem, others, weights, model)
    own = source(history, 1.0, hearing.encoding, None) if hearing is not None else None
    telling = hearing.telling(history.task) if hearing is not None else []
    if hearing is None or own is None or not telling:
        return ()
    judged = hearing.judged(own.rows)
    first = np.argsort(judged.weights @ judged.penalised, kind="stable")[:_HELD_OUT]
    forecasts = hearing.forecasts(own.rows[first], telling)
    return tuple(one.residual(loss) for one, loss in zip(forecasts, own.losses[first].tolist(), strict=True))


def _is_sure(judged: Judged, expected: float) -> bool:
    same = any(one.similarity >= SAME_DATA and len(one.scores) >= _SURE_TRIALS for one in judged.sources)
    like = sum(one.similarity >= _VERY_ALIKE for one in judged.sources)
    return bool(expected <= _SURE_SCORE and (same or like >= _SURE_HISTORIES))


def _predictions(hearing: Hearing, rows: Array, task: Task, model: FittedModel) -> list[Prediction | None]:
    """Median and 80 % interval in the metric's units: (C, D) -> C of them, None where the histories do not tell."""
    telling = hearing.telling(task)
    if not telling:
        return [None] * len(rows)
    same = any(hearing.sources[place].similarity >= SAME_DATA for place in telling)
    calibration = model.calibration(same_data=same)
    bounds = plausible([end for place in telling for end in hearing.sources[place].history.extent or ()])

    def predicted(forecast: Forecast) -> Prediction:
        ends = [-task.goal.sign * forecast.loss(one) for one in (calibration.low, calibration.median, calibration.high)]
        low, median, high = sorted(np.clip(ends, *bounds).tolist())
        return Prediction(median=median, low=low, high=high)

    return [predicted(forecast) for forecast in hearing.forecasts(rows, telling)]
