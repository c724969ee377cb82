"""Standard test functions over typed spaces: real, logarithmic, integer, categorical and conditional parameters.

Formulas and optima: Surjanovic & Bingham, Virtual Library of Simulation Experiments. Domains are moved off centre where
the optimum would lie in the middle of the cube, so that nothing wins by trying the middle first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.problems.problem import BenchmarkProblem, Landscape, Objective, Split
from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import AnyParameter, Configuration, Space

Vector = npt.NDArray[np.float64]

_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN3_A = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_HARTMANN3_P = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
_HARTMANN6_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN6_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def branin(x: Vector) -> float:
    """Branin-Hoo on [-5, 10] x [0, 15]; least value 0.397887."""
    a, b = x
    left = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
    return float(left**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10)


def hartmann3(x: Vector) -> float:
    """Hartmann on [0, 1]^3; least value -3.862782."""
    return float(-_HARTMANN_ALPHA @ np.exp(-(_HARTMANN3_A * (x - _HARTMANN3_P) ** 2).sum(1)))


def hartmann6(x: Vector) -> float:
    """Hartmann on [0, 1]^6; least value -3.322368."""
    return float(-_HARTMANN_ALPHA @ np.exp(-(_HARTMANN6_A * (x - _HARTMANN6_P) ** 2).sum(1)))


def ackley(x: Vector) -> float:
    """Ackley; least value 0 at the origin."""
    wells = -20 * math.exp(-0.2 * math.sqrt(float(np.mean(x**2))))
    return wells - math.exp(float(np.mean(np.cos(2 * math.pi * x)))) + 20 + math.e


def rosenbrock(x: Vector) -> float:
    """Rosenbrock's valley; least value 0 at (1, ..., 1)."""
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def levy(x: Vector) -> float:
    """Levy; least value 0 at (1, ..., 1)."""
    w = 1 + (x - 1) / 4
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2))
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle + last)


def styblinski_tang(x: Vector) -> float:
    """Styblinski-Tang; least value -39.166166 a dimension at -2.903534."""
    return float(0.5 * np.sum(x**4 - 16 * x**2 + 5 * x))


def griewank(x: Vector) -> float:
    """Griewank; least value 0 at the origin."""
    return float(np.sum(x**2) / 4000 - np.prod(np.cos(x / np.sqrt(np.arange(1, len(x) + 1)))) + 1)


def _box(*bounds: tuple[float, float]) -> Space:
    return Space.of(*(Float(name=f"x{i}", low=low, high=high) for i, (low, high) in enumerate(bounds)))


def _log_box(dimensions: int, low: float, high: float) -> Space:
    return Space.of(*(Float(name=f"x{i}", low=low, high=high, log=True) for i in range(dimensions)))


def _number(configuration: Configuration, name: str) -> float:
    value = configuration[name]
    assert isinstance(value, int | float)
    return float(value)


def _numbers(configuration: Configuration, names: Sequence[str]) -> Vector:
    return np.array([_number(configuration, name) for name in names])


def _of_box(function: Callable[[Vector], float], dimensions: int) -> Objective:
    names = [f"x{i}" for i in range(dimensions)]
    return lambda configuration: function(_numbers(configuration, names))


def _of_log_box(function: Callable[[Vector], float], dimensions: int, low: float, high: float) -> Objective:
    """The function on [0, 1]^d, read off the logarithms of parameters in [low, high]."""
    names = [f"x{i}" for i in range(dimensions)]
    width = math.log(high / low)
    return lambda configuration: function(np.log(_numbers(configuration, names) / low) / width)


def _mixed(function: Callable[[Vector], float], floats: int, scale: float) -> Objective:
    """`floats` reals, then an integer and an unordered choice that each set one more coordinate on a grid."""
    choices = {"a": 2.0, "b": -1.0, "c": 0.0, "d": 1.0, "e": -2.0}

    def objective(configuration: Configuration) -> float:
        reals = _numbers(configuration, [f"x{i}" for i in range(floats)])
        whole = _number(configuration, "steps") * scale
        chosen = choices[str(configuration["kind"])] * scale
        return function(np.array([*reals, whole, chosen]))

    return objective


def _mixed_space(low: float, high: float, floats: int) -> Space:
    parameters: list[AnyParameter] = [Float(name=f"x{i}", low=low, high=high) for i in range(floats)]
    parameters.append(Int(name="steps", low=-3, high=6))
    parameters.append(Categorical(name="kind", choices=["a", "b", "c", "d", "e"]))
    return Space(tuple(parameters))


def _optimizer_space(deep: bool) -> Space:
    parameters: list[AnyParameter] = [
        Float(name="learning_rate", low=1e-5, high=1.0, log=True),
        Categorical(name="optimizer", choices=["sgd", "adam", "adamw"]),
        Float(name="momentum", low=0.0, high=0.99, when={"optimizer": ["sgd"]}),
        Float(name="beta2", low=0.9, high=0.9999, when={"optimizer": ["adam", "adamw"]}),
        Float(name="weight_decay", low=1e-6, high=1e-1, log=True, when={"optimizer": ["sgd", "adamw"]}),
        Int(name="width", low=16, high=512, log=True),
    ]
    if deep:
        parameters += [
            Bool(name="dropout_on"),
            Float(name="dropout", low=0.0, high=0.8, when={"dropout_on": [True]}),
            Int(name="depth", low=1, high=6),
        ]
    return Space(tuple(parameters))


def _optimizer_loss(shift: float) -> Objective:
    """A smooth loss of a training set-up: each optimizer has its own best learning rate, and parameters interact."""
    best_rate = {"sgd": -1.1 + shift, "adam": -2.9 + shift, "adamw": -2.7 + shift}
    floor = {"sgd": 0.0, "adam": 0.06, "adamw": 0.02}

    def objective(configuration: Configuration) -> float:
        kind = str(configuration["optimizer"])
        rate = math.log10(_number(configuration, "learning_rate"))
        width = math.log2(_number(configuration, "width"))
        target = best_rate[kind] - 0.15 * (width - 6)
        if kind == "sgd":
            target += 1.2 * (0.9 - _number(configuration, "momentum"))
        loss = floor[kind] + 0.9 * (1 - math.exp(-((rate - target) ** 2) / 0.8))
        loss += 0.02 * (width - 7.5 + shift) ** 2
        if kind == "sgd":
            loss += 0.3 * (_number(configuration, "momentum") - 0.85) ** 2
        else:
            loss += 8.0 * (_number(configuration, "beta2") - 0.98) ** 2
        if kind in ("sgd", "adamw"):
            loss += 0.015 * (math.log10(_number(configuration, "weight_decay")) + 3.5 + 0.3 * (rate - target)) ** 2
        if "depth" in configuration:
            depth = _number(configuration, "depth")
            dropout = _number(configuration, "dropout") if "dropout" in configuration else 0.0
            loss += 0.03 * (depth - 4) ** 2 + 0.5 * (dropout - 0.05 * depth - shift / 4) ** 2
        return loss

    return objective


def _function(name: str, split: Split, space: Space, objective: Objective, best: float) -> BenchmarkProblem:
    return BenchmarkProblem(name, split, space, lambda: Landscape(objective, best))


FUNCTIONS: tuple[BenchmarkProblem, ...] = (
    _function("branin", "development", _box((-5, 10), (0, 15)), _of_box(branin, 2), 0.39788735773),
    _function("hartmann3_log", "development", _log_box(3, 1e-5, 1.0), _of_log_box(hartmann3, 3, 1e-5, 1.0), -3.8627798),
    _function("ackley5", "development", _box(*[(-5.0, 10.0)] * 5), _of_box(ackley, 5), 0.0),
    _function("rosenbrock4", "development", _box(*[(-5.0, 10.0)] * 4), _of_box(rosenbrock, 4), 0.0),
    _function("levy5_mixed", "development", _mixed_space(-10, 10, 3), _mixed(levy, 3, 1.0), 0.0),
    _function("optimizer", "development", _optimizer_space(False), _optimizer_loss(0.0), 0.0),
    _function("hartmann6", "report", _box(*[(0.0, 1.0)] * 6), _of_box(hartmann6, 6), -3.32236801),
    _function("levy4", "report", _box(*[(-10.0, 10.0)] * 4), _of_box(levy, 4), 0.0),
    _function("styblinski_tang4", "report", _box(*[(-5.0, 5.0)] * 4), _of_box(styblinski_tang, 4), -156.664663),
    _function("griewank5", "report", _box(*[(-300.0, 600.0)] * 5), _of_box(griewank, 5), 0.0),
    _function("ackley5_mixed", "report", _mixed_space(-5, 10, 3), _mixed(ackley, 3, 1.0), 0.0),
    _function("hartmann6_log", "report", _log_box(6, 1e-6, 1.0), _of_log_box(hartmann6, 6, 1e-6, 1.0), -3.32236801),
    _function("optimizer_deep", "report", _optimizer_space(True), _optimizer_loss(0.35), 0.0),
)
