"""The door for proposals: which arm proposes, and from which random stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretune.spaces import Configuration
from metalearner import cold_gp, quasirandom, tpe
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.memory import History, Memory
from metalearner.values import Effort, Observation, Origin, PortfolioItem, Prediction, Problem, Proposal, ProposerName

_LONGEST_START = 6
_LOOK_AROUND = 3
"""As many quasi-random proposals, at least, follow a portfolio."""
_TRIES = 64


@dataclass(frozen=True)
class _Choice:
    row: Array | None
    origin: Origin
    predicted: Prediction | None = None
    item: PortfolioItem | None = None


def propose(
    problem: Problem,
    observations: Sequence[Observation],
    pending: Sequence[Configuration],
    count: int,
    *,
    index: int,
    memory: Memory | None = None,
    effort: Effort = Effort.THOROUGH,
) -> list[Proposal]:
    """`count` configurations to try next; `index` is the number of the first of them, from 0, within the experiment.

    `observations` stand in the order in which they arrived; `pending` are running, without a result yet, and proposals
    keep away from them and from each other. The answer depends on the arguments alone, `memory` excepted: it saves
    time and changes nothing. Raises InvalidConfiguration for a configuration that the space does not know.
    """
    memory = memory or Memory()
    history = memory.history(problem, observations)
    rows = [history.encoding.encode(configuration) for configuration in pending]
    proposals = []
    for number in range(index, index + count):
        generator = np.random.default_rng([problem.seed % 2**63, number, len(history)])
        training_seed = int(generator.integers(2**31))
        choice = _choose(problem, history, memory, rows, number, effort, generator)
        row = choice.row
        if row is None:
            row, choice = _anything_new(history, rows, generator), _Choice(None, Origin.FALLBACK)
        rows.append(row)
        proposals.append(
            Proposal(
                configuration=_configuration(problem, history, row, choice),
                origin=choice.origin,
                predicted=choice.predicted,
                seed=training_seed,
                seen=len(history),
                effort=effort,
                item=choice.item,
            )
        )
    return proposals


def _configuration(problem: Problem, history: History, row: Array, choice: _Choice) -> Configuration:
    """The row as a trial runs it; what was chosen by name to the letter, without a round trip through the cube."""
    if choice.item is not None:
        return dict(choice.item.configuration)
    if choice.origin is Origin.DEFAULT and problem.defaults is not None:
        return dict(problem.defaults)
    return history.encoding.decode(row)


def opening(problem: Problem) -> list[PortfolioItem | None]:
    """What is proposed first, whatever it turns out to be worth; None stands for the expert's default.

    At most the portfolio and the default: wrong histories spoil these few proposals and no later one.
    """
    listed: list[PortfolioItem | None] = []
    if problem.proposer not in (ProposerName.RANDOM, ProposerName.QUASIRANDOM):
        listed.extend(problem.portfolio)
    if problem.defaults is not None:
        listed.insert(1 if listed and problem.network_known else 0, None)
    return listed


def start_length(problem: Problem) -> int:
    """How many quasi-random proposals come first: two more than dimensions, but not more than six."""
    return min(problem.space.dimensions + 2, _LONGEST_START)


def _start_end(problem: Problem, opening_length: int) -> int:
    """Where the start ends. A portfolio says little about the rest of the space, and nothing if it is wrong."""
    return max(start_length(problem), opening_length + (_LOOK_AROUND if problem.portfolio else 0))


def arm(problem: Problem) -> ProposerName:
    """Who proposes after the start."""
    if problem.proposer is not ProposerName.AUTO:
        return problem.proposer
    return ProposerName.GP


def _choose(
    problem: Problem,
    history: History,
    memory: Memory,
    pending: Sequence[Array],
    number: int,
    effort: Effort,
    generator: np.random.Generator,
) -> _Choice:
    chosen = arm(problem)
    encoding = history.encoding
    if chosen is ProposerName.RANDOM:
        return _Choice(encoding.rows(generator.random((1, encoding.width)))[0], Origin.RANDOM)
    first = opening(problem)
    if number < len(first):
        choice = _first(problem, encoding, first[number])
        if choice.row is not None and (number == 0 or not history.has(choice.row, pending)):
            return choice
    if chosen is ProposerName.QUASIRANDOM or number < _start_end(problem, len(first)) or len(history) < 2:
        point = quasirandom.point(encoding.width, problem.seed, number)
        row = encoding.rows(point[None, :])[0]
        return _Choice(None if history.has(row, pending) else row, Origin.QUASIRANDOM)
    if chosen is ProposerName.TPE:
        return _Choice(tpe.suggest(history, pending, effort, generator), Origin.TPE)
    suggestion = cold_gp.suggest(history, memory, pending, problem.goal, cold_gp.SETTINGS[effort], generator)
    return _Choice(suggestion.row, Origin.GP, suggestion.predicted)


def _first(problem: Problem, encoding: Encoding, item: PortfolioItem | None) -> _Choice:
    if item is not None:
        return _Choice(encoding.encode(item.configuration), Origin.PORTFOLIO, item=item)
    assert problem.defaults is not None
    return _Choice(encoding.encode(problem.defaults), Origin.DEFAULT)


def _anything_new(history: History, pending: Sequence[Array], generator: np.random.Generator) -> Array:
    """A random row that nobody tried; in a space that is used up, any row."""
    rows = history.encoding.rows(generator.random((_TRIES, history.encoding.width)))
    return next((row for row in rows if not history.has(row, pending)), rows[0])
