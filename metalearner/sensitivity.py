"""How quickly a result changes along each hyperparameter of a trained network, before any result is known.

A Gaussian process in fourteen dimensions needs dozens of results to find out which of them matter. For networks that
is known beforehand: a learning rate's length scale is a third of its usual range, a label smoothing's seven times its
range. So the length scales have a prior of their own by role (the idea of pre-trained
processes: Wang et al. 2024, arXiv 2109.08215), and so has the noise: two runs of one setting differ.

The lengths were fitted to 250 settings of the perceptron on each of five development sets, noisy digits and synthetic
classes. From set to set, and on images of clothes, which had no say in them, those of the learning rate, the optimizer,
the batch size and the width lie within a factor of about two, the others within ten (docs/LOG.md, 2026-11-28). They
are in the parameter's own units, so they hold for any range: e-folds where it is searched by orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from foretune.parameters import Bool, Categorical, Schedule
from foretune.roles import guess_role
from foretune.spaces import AnyParameter, Space
from metalearner import gp

_LENGTHS: Mapping[str, float] = {
    "learning_rate": 3.0,  # e-folds
    "weight_decay": 12.0,  # e-folds
    "batch_size": 5.0,  # e-folds
    "width": 4.0,  # e-folds
    "depth": 5.5,
    "momentum": 4.0,
    "dropout": 1.1,
    "label_smoothing": 1.4,
    "optimizer": 1.0,  # from one choice to another it is √2
    "activation": 5.0,
    "lr_schedule": 9.0,  # of each shape parameter's range
}
_DEVIATION = 0.7
"""Of the logarithms: as much as those that are least alike differ from task to task."""
_NOISE_MEAN, _NOISE_DEVIATION = -2.0, 1.0
"""Of the logarithm of its variance, where all settings' is one."""


def informed(prior: gp.Prior, space: Space) -> gp.Prior:
    """The prior for results of trained networks on this space; unknown roles keep the usual lengths."""
    lengths: list[tuple[float, float] | None] = []
    for parameter in space.parameters:
        place = space.slices[parameter.name]
        lengths += [_length(parameter)] * (place.stop - place.start)
    return replace(prior, length_scales=tuple(lengths), noise_mean=_NOISE_MEAN, noise_deviation=_NOISE_DEVIATION)


def _length(parameter: AnyParameter) -> tuple[float, float] | None:
    """Mean and deviation of the logarithm of its length in the unit cube; None where nothing is known."""
    length, span = known_length(parameter), edge(parameter)
    return None if length is None or span is None else (math.log(length / span), _DEVIATION)


def known_length(parameter: AnyParameter) -> float | None:
    """In the parameter's own units, by its role."""
    return _LENGTHS.get(parameter.role or guess_role(parameter.name) or "")


def edge(parameter: AnyParameter) -> float | None:
    """The cube's edge in the parameter's own units; None where it has no units."""
    if isinstance(parameter, Schedule | Bool):
        return 1.0
    if isinstance(parameter, Categorical):
        if not parameter.ordered:
            return 1.0
        low, high, is_log = parameter.choices[0], parameter.choices[-1], True
    else:
        low, high, is_log = parameter.low, parameter.high, parameter.log
    if isinstance(low, str | bool) or isinstance(high, str | bool) or low == high or (is_log and min(low, high) <= 0):
        return None
    apart = abs(math.log(high / low)) if is_log else abs(high - low)
    return apart / (parameter.to_unit(high)[0] - parameter.to_unit(low)[0])
