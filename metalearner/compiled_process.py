"""The loops of a Gaussian process and of expected improvement, compiled; `gp`, `acquisition` and `sameness` say what
they compute, in whose symbols this is written. C columns of a point from `scaled`: P, and with a trend 2P more.

The exponential has no branches, so that loops over it become vector instructions. A loop that adds up writes to no
array: where it did, its order, and so the last bit, depended on where arrays lie.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metalearner.arrays import Array, Index
from metalearner.compiling import compiled, compiled_in_order

_LOG2_E = 1.0 / math.log(2.0)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOWEST = -708.0
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12 = (1.0 / math.factorial(n) for n in range(2, 13))
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_FAR = -5.0
"""Below it the tail is a continued fraction: the difference of two nearly equal numbers would lose digits."""
_TERMS = 16
_LEAST_VARIANCE = 1e-12


@intrinsic
def _float_of_bits(_context: object, _bits: object) -> object:
    """The float64 that these 64 bits are."""

    def generate(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@compiled_in_order
def exponential(x: float) -> float:
    """exp(x) of an x that is not positive: 2^n (1 + r + … + r^12 / 12!), r = x - n ln 2; 0 or next to it below -708."""
    bounded = max(x, _LOWEST)
    n = np.floor(bounded * _LOG2_E + 0.5)
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    high = _C8 + r * (_C9 + r * (_C10 + r * (_C11 + r * _C12)))
    series = _C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * (_C7 + r * high)))))
    power = _float_of_bits(np.int64(np.int32(n) + np.int32(1023)) << np.int64(52))
    return (1.0 + (r + r * r * series)) * power


@compiled
def scaled(features: Array, groups: Index, length_scales: Array, trend: float) -> Array:
    """Features (m, P) divided by their length scales, and with a trend √b B after them: (m, C)."""
    count, columns = features.shape
    result = np.empty((count, 3 * columns if trend else columns))
    share = math.sqrt(trend / len(length_scales))
    for i in range(count):
        for p in range(columns):
            result[i, p] = features[i, p] / length_scales[groups[p]]
            if trend:
                z = 2.0 * features[i, p] - 1.0
                result[i, columns + p] = share * z
                result[i, 2 * columns + p] = share * (1.5 * z * z - 0.5)
    return result


@compiled
def _turned(points: Array) -> Array:
    """(n, C) -> (C, n)."""
    result = np.empty((points.shape[1], len(points)))
    for i in range(len(points)):
        for c in range(points.shape[1]):
            result[c, i] = points[i, c]
    return result


@compiled
def _add_squares(line: Array, point: Array, turned: Array, columns: int) -> None:
    """Adds to `line` (n,) the squared distances of a point (C,) from n others (C, n) in the first columns."""
    for c in range(columns):
        here, there = point[c], turned[c]
        for j in range(len(line)):
            line[j] += (here - there[j]) * (here - there[j])


@compiled
def covariances(left: Array, right: Array, columns: int, scale: float, flat: float) -> Array:
    """k + c + b BBᵀ of m and n points from `scaled`, c = `flat`, of whose columns so many are no trend's: (m, n)."""
    turned = _turned(right)
    result = np.zeros((len(left), len(right)))
    for i in range(len(left)):
        line = result[i]
        _add_squares(line, left[i], turned, columns)
        for j in range(len(line)):
            d = math.sqrt(5.0 * line[j])
            line[j] = scale * (1.0 + d + d * d * (1.0 / 3.0)) * exponential(-d) + flat
        for c in range(columns, left.shape[1]):
            here, there = left[i, c], turned[c]
            for j in range(len(line)):
                line[j] += here * there[j]
    return result


@compiled
def predicted(
    added: Array, points: Array, whitening: Array, weights: Array, columns: int, scale: float, flat: float
) -> tuple[Array, Array]:
    """Means and variances at m further points (m, C): (m,), (m,)."""
    cross = covariances(added, points, columns, scale, flat)
    whitened = np.empty_like(cross)
    np.dot(cross, whitening.T, whitened)
    means, variances = np.empty(len(added)), np.empty(len(added))
    for i in range(len(added)):
        mean, variance = 0.0, scale + flat
        for j in range(len(points)):
            mean += cross[i, j] * weights[j]
            variance -= whitened[i, j] * whitened[i, j]
        for c in range(columns, added.shape[1]):
            variance += added[i, c] * added[i, c]
        means[i], variances[i] = mean, max(variance, _LEAST_VARIANCE)
    return means, variances


@compiled
def extended(
    added: Array,
    points: Array,
    whitening: Array,
    weights: Array,
    columns: int,
    scale: float,
    flat: float,
    noise: float,
    jitter: float,
) -> tuple[Array, Array, Array, Array]:
    """Points (n + m, C) and W (n + m, n + m) with m further observations, and of those what was added to K's diagonal
    and the mean before any of them: (m,), (m,).

    With k of a new point to the others its line of L is w = W k, then d = √(k₀ + v - w·w); of W, -(w·W) / d and 1 / d.
    """
    known, total = len(points), len(points) + len(added)
    every, result = np.empty((total, points.shape[1])), np.zeros((total, total))
    for i in range(total):
        for c in range(points.shape[1]):
            every[i, c] = points[i, c] if i < known else added[i - known, c]
    for i in range(known):
        for j in range(i + 1):
            result[i, j] = whitening[i, j]
    cross = covariances(added, every, columns, scale, flat)
    diagonal, means = np.empty(len(added)), np.empty(len(added))
    line = np.empty(total)
    for i in range(len(added)):
        at, mean, left = known + i, 0.0, cross[i, known + i]
        for j in range(known):
            mean += cross[i, j] * weights[j]
        for j in range(at):
            w = 0.0
            for k in range(j + 1):
                w += result[j, k] * cross[i, k]
            line[j] = w
            left -= w * w
        more = jitter
        while not left + noise + more > 0.0:
            more *= 10.0
        means[i], diagonal[i] = mean, noise + more
        share = 1.0 / math.sqrt(left + noise + more)
        own = result[at]
        for j in range(at):
            above = result[j]
            for k in range(j + 1):
                own[k] -= share * line[j] * above[k]
        own[at] = share
    return every, result, diagonal, means


@compiled
def log_h(z: float) -> float:
    """log(φ(z) + z Φ(z)).

    With t = -z and Mills' ratio as a continued fraction, (1 - Φ(t)) / φ(t) = 1 / (t + c), c = 1 / (t + 2 / (t + 3 / …))
    (Abramowitz & Stegun 1964, 26.2.14), it is log φ(t) + log(c / (t + c)).
    """
    if z > _FAR:
        return math.log(_DENSITY * math.exp(-0.5 * z * z) + 0.5 * z * math.erfc(-_SQRT_HALF * z))
    t = -z
    c = 0.0
    for k in range(_TERMS, 0, -1):
        c = k / (t + c)
    return -0.5 * z * z - _HALF_LOG_2PI + math.log(c / (t + c))


@compiled
def log_improvements(means: Array, variances: Array, best: float) -> Array:
    """log s + log h((best - mean) / s): (m,), (m,) -> (m,)."""
    result = np.empty(len(means))
    for i in range(len(means)):
        deviation = math.sqrt(variances[i])
        result[i] = math.log(deviation) + log_h((best - means[i]) / deviation)
    return result


@compiled
def nearest(features: Array, known: Array, others: bool) -> tuple[Array, Index]:
    """How far each of m is from the nearest of n, and which that is: (m, P), (n, P) -> (m,), (m,). With `others` the
    two are the same, and none is its own neighbour.
    """
    turned = _turned(known)
    distances, places = np.empty(len(features)), np.empty(len(features), dtype=np.intp)
    for i in range(len(features)):
        line = np.zeros(len(known))
        _add_squares(line, features[i], turned, len(turned))
        if others:
            line[i] = np.inf
        least = 0
        for j in range(1, len(line)):
            least = j if line[j] < line[least] else least
        distances[i], places[i] = math.sqrt(line[least]), least
    return distances, places


@compiled
def evidence(points: Array, scale: float, mean: Array, diagonal: float) -> tuple[Array, Array, Array]:
    """Of n points (n, P), each (n, n): K with `mean`, which is c 11ᵀ + b BBᵀ, and v = `diagonal`; k; and -(6/5)
    dk/d(r²).
    """
    count = len(points)
    turned = _turned(points)
    matrix, kernel, slopes = np.zeros((count, count)), np.empty((count, count)), np.empty((count, count))
    for i in range(count):
        line, own, slope, flat = matrix[i], kernel[i], slopes[i], mean[i]
        _add_squares(line, points[i], turned, len(turned))
        for j in range(count):
            d = math.sqrt(5.0 * line[j])
            decay = scale * exponential(-d)
            slope[j] = decay * (1.0 + d)
            own[j] = decay * (1.0 + d + d * d * (1.0 / 3.0))
            line[j] = own[j] + flat[j]
        line[i] += diagonal
    return matrix, kernel, slopes


@compiled
def derivatives(
    points: Array, groups: Index, targets: Array, inverse: Array, kernel: Array, slopes: Array, gradient: Array
) -> float:
    """½ yᵀK⁻¹y, and to `gradient` (G + 2,) the derivatives of log p(y) by log l, log s and v, from the upper triangle
    of `inverse`, K⁻¹ (n, n), and from `evidence`.
    """
    count = len(points)
    turned = _turned(points)
    weights = np.zeros(count)
    for i in range(count):
        line, total = inverse[i], 0.0
        for j in range(i, count):
            total += line[j] * targets[j]
        weights[i] += total
        for j in range(i + 1, count):
            weights[j] += line[j] * targets[i]
    value, last = 0.0, len(gradient) - 1
    for g in range(len(gradient)):
        gradient[g] = 0.0
    outer = np.empty(count)
    for i in range(count):
        line, own, slope = inverse[i], kernel[i], slopes[i]
        value += 0.5 * weights[i] * targets[i]
        away = 0.5 * (weights[i] * weights[i] - line[i])
        gradient[last] += away
        by_scale = away * own[i]
        # Both of a pair at once; dk/d(log l_g) is 5/3 of the slope times (difference)² / l_g².
        for j in range(i + 1, count):
            outer[j] = weights[i] * weights[j] - line[j]
        for j in range(i + 1, count):
            by_scale += outer[j] * own[j]
        for j in range(i + 1, count):
            outer[j] *= slope[j]
        gradient[last - 1] += by_scale
        for p in range(len(groups)):
            total, here, there = 0.0, turned[p, i], turned[p]
            for j in range(i + 1, count):
                total += outer[j] * (here - there[j]) * (here - there[j])
            gradient[groups[p]] += (5.0 / 3.0) * total
    return value
