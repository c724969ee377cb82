"""Fitting: a kernel for each history, and how wrong forecasts are on histories that are held out."""

from __future__ import annotations

from collections.abc import Sequence

from metalearner.fitted import FittedModel
from metalearner.foresight import residuals
from metalearner.histories import TaskHistory
from metalearner.kernels import fit_kernel
from metalearner.likeness import FeatureLikeness, Likeness


def fit(
    histories: Sequence[TaskHistory],
    previous: FittedModel | None = None,
    *,
    most_kernels: int | None = None,
    most_held_out: int | None = None,
    likeness: Likeness | None = None,
) -> FittedModel:
    """The model of these histories; what `previous` knows of them is not worked out again.

    `most_kernels` and `most_held_out` bound the work: only the first so many histories get a kernel of their own, and
    only the first so many are held out for calibration. Without bounds a thousand histories of a hundred trials take
    a core less than a minute. The answer depends on the arguments alone.
    """
    previous = previous or FittedModel()
    likeness = likeness or FeatureLikeness()
    kernels = {
        one.reference: previous.kernels.get(one.reference) or fit_kernel(one) for one in histories[:most_kernels]
    }
    kernels |= {
        one.reference: previous.kernels[one.reference] for one in histories if one.reference in previous.kernels
    }
    model = FittedModel(kernels)
    tasks = [one.task for one in histories]
    found = {
        one.reference: previous.residuals[one.reference] for one in histories if one.reference in previous.residuals
    }
    for place, one in enumerate(histories[:most_held_out]):
        if one.reference not in found:
            weights = likeness.weights(one.task, tasks)
            weights[place] = 0.0
            found[one.reference] = residuals(one, histories, weights, model)
    return FittedModel(kernels, found)
