"""Updates of one perceptron, compiled: a run of them is one call, which holds no interpreter lock.

A small perceptron's update is some forty calls of torch, which take longer than its arithmetic. Here it is loops over
the batch between matrix products, and the products are those of SciPy's BLAS, whose kernels for small matrices are up
to three times as fast as batched ones. What is computed is what `stacked_mlp`, `stacked_loss` and `optimizers` say, in
their symbols. A member never sees another, so company changes no bit.

The loops are compiled to vector instructions. That needs an exponential without branches, `_exp`, from which the other
functions are made; the error function is that of Abramowitz & Stegun (1964), 7.1.26, within 1.5e-7.

Numba infers the types, and refuses what does not fit; the annotations are for readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

RELU, GELU, SILU, TANH = range(4)
SGD, ADAM, ADAMW = range(3)


class Perceptron(NamedTuple):
    """What is computed: `layers` linear ones, the head last."""

    offsets: NDArray[np.int64]  # (layers, 2): where weights (N, K) and bias (N,) begin in a row of P numbers
    widths: NDArray[np.int64]  # (layers + 1,): of the inputs, and of what every layer gives, with padding
    activation: int
    classes: int
    """0 for regression."""


class Member(NamedTuple):
    """Whose numbers they are: its rows, all (P,), and room for what lies between inputs and derivatives."""

    weights: NDArray[np.float32]
    gradient: NDArray[np.float32]
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    """SGD knows one moment only, and leaves this alone."""
    room: NDArray[np.float32]  # at least (room_for(rows, widths),)


class Rows(NamedTuple):
    """The data, and which rows each of R batches has: the first `counts` of its `places`."""

    x: NDArray[np.float32]  # (N, F)
    y: NDArray[np.float32]  # (N,), labels as numbers
    places: NDArray[np.int64]  # (R, B)
    counts: NDArray[np.int64]  # (R,)


class Dropout(NamedTuple):
    """See `workers.networks.dropout`; without keys nothing is dropped."""

    words: NDArray[np.int32]  # (B H,)
    keys: NDArray[np.int32]  # (R, layers - 1, 2), or none
    threshold: np.int32
    scale: np.float32


class Optimizer(NamedTuple):
    kind: int
    rates: NDArray[np.float64]  # (R,)
    number: int
    """Of the first of R updates, from 1."""
    settings: tuple[float, float, float, float]
    """Weight decay, momentum or beta1, beta2, epsilon."""
    clip: np.float32
    """The largest norm of a gradient; 0: any."""


# NaN and infinity stay what they are: divergence is found by them.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Kept on disk, beside this file or in the user's cache; where neither can be written, each process compiles."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)


_ZERO, _HALF, _ONE, _TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
_LOG2_E = np.float32(1.0 / math.log(2.0))
_LN2_HIGH, _LN2_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187e-06)
_EXP_LOWEST, _EXP_HIGHEST = np.float32(-87.0), np.float32(88.0)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1.0 / math.factorial(n)) for n in range(2, 8))
_DENSITY = np.float32(1.0 / math.sqrt(2.0 * math.pi))
_P = np.float32(0.3275911 * math.sqrt(0.5))
_A1, _A2, _A3 = np.float32(0.254829592), np.float32(-0.284496736), np.float32(1.421413741)
_A4, _A5 = np.float32(-1.453152027), np.float32(1.061405429)


@intrinsic
def _float_of_bits(_context: object, _bits: object) -> object:
    """The float32 that these 32 bits are."""

    def generate(_context: object, builder: ir.IRBuilder, _signature: object, arguments: list[ir.Value]) -> ir.Value:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@_compiled
def _exp(x: np.float32) -> np.float32:
    """2^n (1 + r + … + r^7 / 7!), r = x - n ln 2, in float32."""
    bounded = min(max(np.float32(x), _EXP_LOWEST), _EXP_HIGHEST)
    n = np.floor(bounded * _LOG2_E + _HALF)
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    series = _C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))
    power = _float_of_bits(np.int32(np.int32(n) + np.int32(127)) << np.int32(23))
    return (_ONE + (r + r * r * series)) * power


@_compiled
def _activate(kind: int, z: NDArray[np.float32], slope: NDArray[np.float32]) -> None:
    """Writes act'(z) to `slope`, then act(z) to `z`."""
    if kind == RELU:
        for i in range(len(z)):
            slope[i] = 1 if z[i] > 0 else 0
            z[i] = 0 if z[i] < 0 else z[i]  # NaN stays
    elif kind == GELU:
        for i in range(len(z)):
            x = z[i]
            bell = _exp(-_HALF * x * x)
            t = _ONE / (_ONE + _P * abs(x))
            tail = _HALF * bell * t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5))))
            below = tail if x < 0 else _ONE - tail
            z[i] = x * below
            slope[i] = below + x * bell * _DENSITY
    elif kind == SILU:
        for i in range(len(z)):
            x = z[i]
            below = _ONE / (_ONE + _exp(-x))
            z[i] = x * below
            slope[i] = below * (_ONE + x * (_ONE - below))
    else:
        for i in range(len(z)):
            a = _TWO / (_ONE + _exp(-_TWO * z[i])) - _ONE
            z[i] = a
            slope[i] = _ONE - a * a


@_compiled
def _drop(dropout: Dropout, key: NDArray[np.int32], out: NDArray[np.float32], slope: NDArray[np.float32]) -> None:
    words, threshold, scale = dropout.words, dropout.threshold, dropout.scale
    multiplier, offset = key[0], key[1]
    for i in range(len(out)):
        kept = scale if np.int32(words[i] * multiplier + offset) >= threshold else _ZERO
        out[i] *= kept
        slope[i] *= kept


@_compiled
def _forward(
    net: Perceptron, member: Member, rows: int, dropout: Dropout, keys: NDArray[np.int32]
) -> tuple[NDArray[np.float32], int]:
    """The outputs (rows, K') of the inputs that `room` begins with, and where in `room` they begin.

    Behind the inputs lies of every hidden layer what it passes on, then the derivative of that by its z.
    """
    weights, room, layers = member.weights, member.room, len(net.offsets)
    below, at = 0, rows * net.widths[0]
    for layer in range(layers):
        before, after = net.widths[layer], net.widths[layer + 1]
        w, b = net.offsets[layer]
        size = rows * after
        z = room[at : at + size]
        states = room[below : below + rows * before].reshape(rows, before)
        np.dot(states, weights[w : w + after * before].reshape(after, before).T, z.reshape(rows, after))
        bias = weights[b : b + after]
        for row in range(rows):
            line = z[row * after : (row + 1) * after]
            for j in range(after):
                line[j] += bias[j]
        below = at
        if layer < layers - 1:
            slope = room[at + size : at + 2 * size]
            _activate(net.activation, z, slope)
            if len(keys):
                _drop(dropout, keys[layer], z, slope)
            at += 2 * size
    return room[at : at + rows * net.widths[layers]].reshape(rows, net.widths[layers]), at


@_compiled
def _backward(net: Perceptron, member: Member, rows: int, at: int) -> None:
    """Writes the derivatives by all parameters, from those by the outputs, which lie at `at`; see `_forward`."""
    weights, gradient, room, layers = member.weights, member.gradient, member.room, len(net.offsets)
    delta, below = at, at
    spare = at + rows * net.widths[layers]
    for layer in range(layers - 1, -1, -1):
        before, after = net.widths[layer], net.widths[layer + 1]
        w, b = net.offsets[layer]
        size = rows * before
        below = below - 2 * size if layer else 0
        by_z = room[delta : delta + rows * after].reshape(rows, after)
        states = room[below : below + size].reshape(rows, before)
        np.dot(by_z.T, states, gradient[w : w + after * before].reshape(after, before))
        by_bias = gradient[b : b + after]
        by_bias[:] = 0
        for row in range(rows):
            for j in range(after):
                by_bias[j] += by_z[row, j]
        if layer:
            passed = room[spare : spare + size]
            np.dot(by_z, weights[w : w + after * before].reshape(after, before), passed.reshape(rows, before))
            slope = room[below + size : below + 2 * size]
            for i in range(size):
                passed[i] *= slope[i]
            delta, spare = spare, spare + size


def room_for(rows: int, widths: NDArray[np.int64]) -> int:
    """How many numbers `Member.room` holds for batches of so many rows."""
    return rows * int(widths[0] + 3 * widths[1:-1].sum() + widths[-1])


@_compiled
def _classification(
    logits: NDArray[np.float32], labels: NDArray[np.float32], chosen: NDArray[np.int64], smoothing: float, classes: int
) -> float:
    """The mean loss of the rows (B, K') with the chosen labels. The logits become its derivatives, zero in padding."""
    rows = len(logits)
    share, other = _ONE / np.float32(rows), np.float32(smoothing / classes)
    loss = 0.0
    for row in range(rows):
        line, label = logits[row], int(labels[chosen[row]])
        highest, total = line[0], 0.0
        for k in range(classes):
            highest = max(highest, line[k])
            total += line[k]
        wanted = (1.0 - smoothing) * line[label] + other * total
        mass = _ZERO
        for k in range(classes):
            line[k] = _exp(line[k] - highest)
            mass += line[k]
        loss += math.log(mass) + highest - wanted
        for k in range(classes):
            line[k] = share * (line[k] / mass - other)
        line[label] -= share * np.float32(1.0 - smoothing)
        line[classes:] = 0
    return loss / rows


@_compiled
def _regression(outputs: NDArray[np.float32], targets: NDArray[np.float32], chosen: NDArray[np.int64]) -> float:
    """Likewise, of (B, K') outputs, of which the first counts."""
    rows, loss = len(outputs), 0.0
    for row in range(rows):
        error = outputs[row, 0] - targets[chosen[row]]
        loss += error * error
        outputs[row] = 0
        outputs[row, 0] = _TWO * error / np.float32(rows)
    return loss / rows


@_compiled
def _clip(gradient: NDArray[np.float32], largest_norm: np.float32) -> None:
    squares = gradient[0] * gradient[0]
    for i in range(1, len(gradient)):
        squares += gradient[i] * gradient[i]
    factor = largest_norm / (np.float32(math.sqrt(squares)) + np.float32(1e-6))
    if not factor >= 1:  # NaN is not
        for i in range(len(gradient)):
            gradient[i] *= factor


@_compiled
def _update(member: Member, optimizer: Optimizer, at: int) -> None:
    """The update at place `at`, from 0."""
    weights, gradient, first, second = member.weights, member.gradient, member.first, member.second
    decay, keep1, keep2, epsilon = optimizer.settings
    rate, number = optimizer.rates[at], optimizer.number + at
    if optimizer.kind == SGD:
        added, momentum, step = np.float32(decay), np.float32(keep1), np.float32(rate)
        for i in range(len(weights)):
            first[i] = momentum * first[i] + (gradient[i] + added * weights[i])
            weights[i] -= step * first[i]
        return
    coupled = optimizer.kind == ADAM
    added, shrink = np.float32(decay if coupled else 0.0), np.float32(1.0 if coupled else 1.0 - rate * decay)
    step = np.float32(rate / (1.0 - keep1**number))
    root = np.float32(1.0 / math.sqrt(1.0 - keep2**number))
    new1, old2, new2 = np.float32(1.0 - keep1), np.float32(keep2), np.float32(1.0 - keep2)
    eps = np.float32(epsilon)
    for i in range(len(weights)):
        w = weights[i] * shrink
        g = gradient[i] + added * w
        m = first[i] + new1 * (g - first[i])
        v = old2 * second[i] + new2 * (g * g)
        first[i], second[i] = m, v
        weights[i] = w - step * m / (np.sqrt(v) * root + eps)


@_compiled
def train(
    net: Perceptron,
    member: Member,
    rows: Rows,
    dropout: Dropout,
    smoothing: float,
    optimizer: Optimizer,
    losses: NDArray[np.float64],  # (R,)
) -> None:
    """R updates of one member; their losses are written to `losses`."""
    none = dropout.keys[:0, 0]
    for update in range(len(losses)):
        count, chosen = rows.counts[update], rows.places[update]
        inputs = member.room[: count * net.widths[0]].reshape(count, net.widths[0])
        for row in range(count):
            inputs[row] = rows.x[chosen[row]]
        keys = dropout.keys[update] if len(dropout.keys) else none
        outputs, at = _forward(net, member, count, dropout, keys)
        if net.classes:
            losses[update] = _classification(outputs, rows.y, chosen, smoothing, net.classes)
        else:
            losses[update] = _regression(outputs, rows.y, chosen)
        _backward(net, member, count, at)
        if optimizer.clip > 0:
            _clip(member.gradient, optimizer.clip)
        _update(member, optimizer, update)


@_compiled
def evaluate(
    net: Perceptron,
    member: Member,
    x: NDArray[np.float32],  # (N, F)
    y: NDArray[np.float32],  # (N,)
    dropout: Dropout,  # without keys
    at_once: int,
) -> tuple[float, float]:
    """Sums over all rows, of which so many are computed `at_once`: of the cross-entropy, and how many are right; of
    squared errors, and of absolute ones.
    """
    first, second = 0.0, 0.0
    for begin in range(0, len(x), at_once):
        count = min(at_once, len(x) - begin)
        inputs = member.room[: count * net.widths[0]].reshape(count, net.widths[0])
        inputs[:] = x[begin : begin + count]
        outputs, _ = _forward(net, member, count, dropout, dropout.keys[:, 0])
        for row in range(count):
            line, wanted = outputs[row], y[begin + row]
            if net.classes:
                best = 0
                for k in range(1, net.classes):
                    best = k if line[k] > line[best] else best
                highest, mass = line[best], _ZERO
                for k in range(net.classes):
                    mass += _exp(line[k] - highest)
                first += math.log(mass) + highest - line[int(wanted)]
                second += best == wanted
            else:
                error = line[0] - wanted
                first += error * error
                second += abs(error)
    return first, second
