"""What settings of a network are worth on average over tasks, before this task has a result.

    s(x) = ρ z(x) + δ(x),    z(x) = (m(x) - m̄) / (σ_m + ε)     m̄, σ_m: over the settings that have results
m is a small perceptron, less is better, on a scale that tasks share, fitted to the mean of the response surfaces of
made tasks (`python -m benchmarks.prior_mean` trains them and writes the file); δ is the cold Gaussian process. A
process's mean learned from other tasks is what Wang et al. 2024 (arXiv 2109.08215) pre-train. How far this task's
scores s agree with it, ρ, is estimated by ridge regression towards what is usual, and never negative.

m is a function on the space that the network had when it was fitted, `reference`: other spaces of the network are read
as places in it, with the network's default where they say nothing.

Symbols: m rows, D dimensions, P feature columns, H hidden units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foretune.errors import ForetuneError
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Categorical
from foretune.spaces import AnyParameter, Space
from metalearner.arrays import Array
from metalearner.encoding import Encoding

_FOLDER = Path(__file__).parent / "prior_means"
_AGREEMENT, _RIDGE = 0.6, 5.0
"""The usual ρ, and as how many results it counts."""
_LEAST_SPREAD = 0.2
"""ε: settings that m thinks alike are not told apart by it."""
_KNOTS = 129
"""At so many places of a number's range its place in the reference is looked up; between them it is a line."""


@dataclass(frozen=True, eq=False)
class PriorMean:
    """m for one network. Equal to itself alone, so that it is a key in no time."""

    network: str
    reference: Encoding
    values: Mapping[str, JsonValue]
    """Of the parameters that a space leaves out: the network's defaults."""
    hidden: NDArray[np.float32]  # (P, H)
    bias: NDArray[np.float32]  # (H,)
    head: NDArray[np.float32]  # (H,)

    def at(self, rows: Array) -> Array:
        """m at rows of the reference: (m, D) -> (m,)."""
        features = self.reference.features(rows).astype(np.float32)  # whose tanh takes a fifth of the time
        return np.asarray(np.tanh(features @ self.hidden + self.bias) @ self.head, dtype=np.float64)

    def where(self, fixed: JsonObject) -> PriorMean:
        """m where parameters that a space leaves out have these values."""
        values = dict(self.values)
        values.update(fixed)
        return replace(self, values=values) if fixed else self

    def to_json(self) -> JsonObject:
        """As the file holds it."""
        return {
            "network": self.network,
            "space": self.reference.space.to_json(),
            "values": dict(self.values),
            "hidden": _rounded(self.hidden),
            "bias": _rounded(self.bias),
            "head": _rounded(self.head),
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> PriorMean:
        """Of what `to_json` gave."""
        hidden, bias, head = (np.array(value[name], dtype=np.float32) for name in ("hidden", "bias", "head"))
        values = value["values"]
        assert isinstance(values, dict)
        return cls(str(value["network"]), Encoding.of(Space.from_json(value["space"])), values, hidden, bias, head)


@lru_cache(maxsize=64)
def known_mean(network: str | None) -> PriorMean | None:
    """What ships for this network; None where nothing does."""
    file = _FOLDER / f"{network}.json"
    return PriorMean.from_json(json.loads(file.read_text())) if network and file.is_file() else None


@dataclass(frozen=True)
class Expectation:
    """ρ z(x): the scores that are expected before the process has its say."""

    mean: Callable[[Array], Array]
    centre: float
    slope: float

    def at(self, rows: Array) -> Array:
        """(m, D) -> (m,)."""
        return self.slope * (self.mean(rows) - self.centre)


def expectation(mean: Callable[[Array], Array], rows: Array, scores: Array) -> Expectation:
    """How far standardised scores (n,) of rows (n, D) agree with `mean`."""
    opinions = mean(rows)
    centre, spread = float(opinions.mean()), float(opinions.std()) + _LEAST_SPREAD
    z = (opinions - centre) / spread
    agreement = (float(z @ scores) + _AGREEMENT * _RIDGE) / (float(z @ z) + _RIDGE)
    return Expectation(mean, centre, max(0.0, agreement) / spread)


def mean_on(known: PriorMean, encoding: Encoding) -> Callable[[Array], Array]:
    """m as a function of rows of any space of the network: (m, D) -> (m,)."""
    reference = known.reference
    if encoding.key == reference.key:
        return known.at
    lines, base = [], np.full(reference.width, 0.5)
    for parameter in reference.space.parameters:
        place = reference.space.slices[parameter.name]
        base[place] = np.nan_to_num(_units(parameter, [known.values.get(parameter.name)])[0], nan=0.5)
        own = encoding.space.by_name.get(parameter.name)
        if own is not None and own.dimensions == parameter.dimensions:
            lines += _lines(own, parameter, encoding.space.slices[parameter.name].start, place.start, base[place])

    def at(rows: Array) -> Array:
        points = np.tile(base, (len(rows), 1))
        for begin, end, knots, places in lines:
            column = rows[:, begin]
            points[:, end] = np.where(np.isnan(column), points[:, end], np.interp(column, knots, places))
        return known.at(reference.rows(points))

    return at


def _lines(
    own: AnyParameter, parameter: AnyParameter, begin: int, end: int, base: Array
) -> list[tuple[int, int, Array, Array]]:
    """Where each dimension of a parameter comes from, where it goes to, and the broken line between. A value that the
    reference does not know counts as `base`.
    """
    count = len(own.choices) if isinstance(own, Categorical) else 0
    knots = (np.arange(count) + 0.5) / count if count else np.linspace(0.0, 1.0, _KNOTS)
    found = np.array(_units(parameter, [own.from_unit([float(knot)] * own.dimensions) for knot in knots]))
    places = np.where(np.isnan(found), base, found)
    return [(begin + j, end + j, knots, places[:, j]) for j in range(own.dimensions)]


def _units(parameter: AnyParameter, values: list[JsonValue]) -> list[list[float]]:
    """Places in the cube; the nearest of choices that are numbers; NaN for a value that it does not know."""
    nowhere = [math.nan] * parameter.dimensions
    units = []
    for value in values:
        try:
            units.append(parameter.to_unit(_nearest(parameter, value)))
        except (ForetuneError, ValueError, TypeError):
            units.append(nowhere)
    return units


def _nearest(parameter: AnyParameter, value: JsonValue) -> JsonValue:
    if not isinstance(parameter, Categorical) or isinstance(value, str | bool) or not isinstance(value, int | float):
        return value
    numbers = [one for one in parameter.choices if not isinstance(one, str | bool)]
    return min(numbers, key=lambda one: abs(one - value)) if numbers else value


def _rounded(values: NDArray[np.float32]) -> JsonValue:
    """Five digits are plenty."""
    if values.ndim > 1:
        return [_rounded(one) for one in values]
    return [float(f"{value:.5g}") for value in values.tolist()]
