"""The loops of outcomes, compiled: their scores, and of many the few that are looked at; see `outcomes`."""

from __future__ import annotations

import math

import numpy as np

from metalearner.arrays import Array, Index
from metalearner.compiling import compiled

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2PI = math.sqrt(2.0 * math.pi)
_FLAT = 1e-12
_LEAST_DEVIATION = 1e-9


@compiled
def quantile(p: float) -> float:
    """Φ⁻¹(p), 0 < p < 1: Abramowitz & Stegun (1964), 26.2.23, within 4.5e-4, and two steps of Halley's method, each of
    which leaves no more than the third power of what is wrong.
    """
    tail = min(p, 1.0 - p)
    t = math.sqrt(-2.0 * math.log(tail))
    x = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for _ in range(2):
        step = (0.5 * math.erfc(-_SQRT_HALF * x) - tail) * _SQRT_2PI * math.exp(0.5 * x * x)
        x -= step / (1.0 + 0.5 * x * step)
    return x if p < 0.5 else -x


@compiled
def interpolated(x: float, places: Array, heights: Array) -> float:
    """What a line through points (k,) at ascending `places` has at x; beyond them it is level."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if places[middle] <= x:
            low = middle + 1
        else:
            high = middle
    if low == 0 or low == len(places):
        return float(heights[low - 1] if low else heights[0])
    share = (x - places[low - 1]) / (places[low] - places[low - 1])
    return float(heights[low - 1] + share * (heights[low] - heights[low - 1]))


@compiled
def scores(ascending: Array, feasible: int) -> tuple[Array, float]:
    """Of losses (n,), n > 1, the first so many of which are finite, at least one: their scores, and score for each unit
    of loss on the linear side, 0 where all are alike.
    """
    count = len(ascending)
    median = 0.5 * (ascending[(feasible - 1) // 2] + ascending[feasible // 2])
    good, squares = 0, 0.0
    while good < feasible and ascending[good] <= median:
        good += 1
    for i in range(good):
        squares += (ascending[i] - median) ** 2
    spread = math.sqrt(squares / good)
    if spread <= _FLAT * max(abs(median), 1e-300):
        spread = 0.0
    quantiles = np.empty(count)
    first = 0
    while first < count:
        # Ties share their mean rank.
        end = first + 1
        while end < count and ascending[end] == ascending[first]:
            end += 1
        for i in range(first, end):
            quantiles[i] = 0.5 * (first + end) / count
        first = end
    middle = interpolated(median, ascending[:feasible], quantiles[:feasible])
    middle = quantile(min(max(middle, 0.5 / count), 1.0 - 0.5 / count))
    result = np.empty(count)
    for i in range(count):
        if ascending[i] > median:
            known = i > 0 and quantiles[i] == quantiles[i - 1]
            result[i] = result[i - 1] if known else quantile(quantiles[i]) - middle
        else:
            result[i] = (ascending[i] - median) / spread if spread else 0.0
    total, squares = 0.0, 0.0
    for i in range(count):
        total += result[i]
    center = total / count
    for i in range(count):
        squares += (result[i] - center) ** 2
    deviation = math.sqrt(squares / count)
    deviation = deviation if deviation > _LEAST_DEVIATION else 1.0
    for i in range(count):
        result[i] = (result[i] - center) / deviation
    return result, 1.0 / (spread * deviation) if spread else 0.0


@compiled
def spread_out(losses: Array, limit: int) -> Index:
    """Which `limit` of more losses (n,) to look at, in their order: the best third, of equal ones the first, the last
    third, and others evenly spread over the time before.
    """
    count, third = len(losses), limit // 3
    best, taken = np.empty(third, dtype=np.intp), np.zeros(count, dtype=np.bool_)
    found = 0
    for i in range(count):
        if found == third and not losses[i] < losses[best[third - 1]]:
            continue
        at = found if found < third else third - 1
        while at and losses[i] < losses[best[at - 1]]:
            best[at] = best[at - 1]
            at -= 1
        best[at] = i
        found = min(found + 1, third)
    for i in range(third):
        taken[best[i]] = True
        taken[count - 1 - i] = True
    rest = np.empty(count, dtype=np.intp)
    left = 0
    for i in range(count):
        rest[left] = i
        left += not taken[i]
    spread = limit - (count - left)
    for i in range(spread):
        taken[rest[i * (left - 1) // (spread - 1)]] = True
    result, at = np.empty(limit, dtype=np.intp), 0
    for i in range(count):
        if taken[i]:
            result[at] = i
            at += 1
    return result
