"""The kernel of a history: fitted once, on its own space, and put in the place of any space that shares parameters.

A history's normal scores are fitted in the units of its own ranges. In another space a parameter with the same role has
the same length scale in the metric's own units; so in units of the range it grows by the ratio of the ranges. What the
other space does not vary is noise there: of a process with scale s whose lost dimensions are uniform, two points
differ in them by r² = Σ 1/(6 l²) on average, and the share s (1 - k(r)/s) of its variance cannot be told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from foretune.parameters import Float, Int
from foretune.spaces import AnyParameter
from metalearner import gp
from metalearner.encoding import Encoding
from metalearner.histories import TaskHistory, counterpart, source
from metalearner.portfolio import chosen_trials

_ITERATIONS = 15
_LEAST_TRIALS = 8
_PRIOR = gp.Prior(noise_mean=-3.0, mean_variance=0.1)
_BOUNDS = (math.exp(-4.0), math.exp(8.0))


@dataclass(frozen=True)
class HistoryKernel:
    """Hyperparameters on a history's own space. `length_scales`: one a dimension of it."""

    length_scales: tuple[float, ...]
    scale: float
    noise: float


def fit_kernel(history: TaskHistory) -> HistoryKernel:
    """What the history's own results say; the usual kernel where they are few or all alike."""
    encoding = Encoding.of(history.space)
    seen = source(history, 1.0, encoding, None)
    if seen is None or len(seen.scores) < _LEAST_TRIALS:
        return usual_kernel(encoding.width)
    chosen = chosen_trials(seen.scores)
    kernel = gp.fit(seen.features[chosen], seen.scores[chosen], encoding.groups, _PRIOR, _ITERATIONS)
    return HistoryKernel(tuple(kernel.length_scales.tolist()), kernel.scale, kernel.noise)


def usual_kernel(dimensions: int) -> HistoryKernel:
    """Of a history of whose results nothing is known."""
    return HistoryKernel((_usual_length(dimensions),) * dimensions, 1.0, 0.1)


def _usual_length(dimensions: int) -> float:
    return 0.5 * math.sqrt(dimensions)


def placed(kernel: HistoryKernel, history: TaskHistory, encoding: Encoding) -> gp.Kernel:
    """The history's kernel in another space."""
    lengths = np.full(encoding.width, _usual_length(encoding.width))
    lost = dict.fromkeys(history.space.by_name)
    for parameter in encoding.space.parameters:
        name = counterpart(history.space, encoding.space, parameter)
        if name is None:
            continue
        lost.pop(name, None)
        theirs = history.space.by_name[name]
        own = np.array(kernel.length_scales[history.space.slices[name]])
        ratio = _ratio(theirs, parameter)
        place = encoding.space.slices[parameter.name]
        if ratio is not None and len(own) == place.stop - place.start:
            lengths[place] = np.clip(own * ratio, *_BOUNDS)
    inverse_squares = [1.0 / length**2 for name in lost for length in kernel.length_scales[history.space.slices[name]]]
    untold = kernel.scale * (1.0 - _correlation(math.fsum(inverse_squares) / 6.0))
    return gp.Kernel(lengths, max(kernel.scale - untold, 1e-3), kernel.noise + untold, _PRIOR.mean_variance)


def _ratio(theirs: AnyParameter, ours: AnyParameter) -> float | None:
    """By how much a length in units of their range grows in units of ours; None where they do not compare."""
    if isinstance(theirs, Float | Int) and isinstance(ours, Float | Int):
        if theirs.log != ours.log:
            return None
        return _length(theirs) / _length(ours)
    return 1.0 if type(theirs) is type(ours) else None


def _length(parameter: Float | Int) -> float:
    low, high = float(parameter.low), float(parameter.high)
    return math.log(high / low) if parameter.log else high - low


def _correlation(square: float) -> float:
    """Matérn-5/2 at a squared distance."""
    distance = math.sqrt(5.0 * square)
    return math.exp(-distance) * (1.0 + distance + distance**2 / 3.0)
