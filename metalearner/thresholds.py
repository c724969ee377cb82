"""A stopping policy as numbers: what a trial must have reached at each epoch to go on.

Every policy compares the best value so far with the other trials at the same epoch, so its verdict is a threshold.
Whoever takes a measurement can compare without knowing the policy or the curves.
"""

from __future__ import annotations

from collections.abc import Sequence

from metalearner.stopping import decide
from metalearner.values import Action, Problem, StoppingPolicy


def thresholds(
    problem: Problem, curves: Sequence[tuple[float, ...]], policy: StoppingPolicy, epochs: Sequence[int]
) -> dict[int, float]:
    """For each of `epochs`, the worst best-so-far with which a trial goes on; absent where every trial does."""
    found: dict[int, float] = {}
    if policy is StoppingPolicy.NONE:
        return found
    for epoch in epochs:
        reached = [curve[:epoch] for curve in curves if len(curve) >= epoch]
        threshold = _threshold(problem, reached, policy, epoch)
        if threshold is not None:
            found[epoch] = threshold
    return found


def _threshold(
    problem: Problem, reached: Sequence[tuple[float, ...]], policy: StoppingPolicy, epoch: int
) -> float | None:
    """The worst value among those reached with which a flat curve goes on: verdicts are monotone in the value."""
    sign = problem.goal.sign
    values = sorted({sign * max(sign * value for value in curve) for curve in reached}, key=lambda v: sign * v)

    def goes_on(value: float) -> bool:
        return decide(problem, (value,) * epoch, reached, policy).action is Action.CONTINUE

    if not values or goes_on(values[0] - sign * (abs(values[0]) + 1.0)):
        return None
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if goes_on(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[low] if goes_on(values[low]) else None
