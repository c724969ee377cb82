"""The door for proposals: which arm proposes, and from which random stream.

After histories have broken their first promise (`metalearner.gate`), proposals are those of the same experiment without
histories, to the letter, until the gate is as good as open: the portfolio's settings and what came of them are set
aside. So wrong histories cost the trials that they chose, and nothing after them. If the first of the other results
turn out worse than the promised one, the portfolio alone is gone on with. Where neither levels nor likeness say what
the first promise is worth, the second proposal is without histories, too, and tells.

The portfolio goes on with what its results call for (`metalearner.listing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foretune.spaces import Configuration
from metalearner import cold_gp, quasirandom, tpe, transfer
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.expert import Belief
from metalearner.gate import Verdict, tested, verdict
from metalearner.memory import History, Memory
from metalearner.portfolio import ALIKE, MAX_ITEMS
from metalearner.values import (
    Effort,
    Evidence,
    Observation,
    Origin,
    PortfolioItem,
    Prediction,
    Problem,
    Proposal,
    ProposerName,
)

_LONGEST_START = 6
_LOOK_AROUND = 3
"""As many quasi-random proposals, at least, follow a portfolio of which no gate says what it is worth."""
_COLD_EVERY = 3
"""Of so many proposals the last one never saw a history."""
_OPENING = 8
"""So many proposals at most come before the surrogate's where histories are known."""
_TRUSTED = 0.5
"""Beyond as many turns as it holds, the portfolio is gone on with while the gate is at least so far open."""
_REGAINED = 0.9
"""Histories that broke their first promise are heard again while the gate is at least so far open."""
_TESTS = 2
"""So many cold proposals at most follow the first where no level says what its promise is worth."""
_TRIES = 64


@dataclass(frozen=True)
class _Choice:
    row: Array | None
    origin: Origin
    predicted: Prediction | None = None
    item: PortfolioItem | None = None
    evidence: tuple[Evidence, ...] = ()


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
    rows = history.rows_of(pending)
    found = _verdict(problem, history)
    trust = found.gate if found is not None else None
    proposals = []
    for number in range(index, index + count):
        alone = _is_alone(problem, history, rows, number, found)
        plain = _without_histories(problem, history, observations, rows, number, memory, effort) if alone else None
        if plain is not None:
            rows.append(history.encoding.encode(plain.configuration))
            proposals.append(replace(plain, seen=len(history), gate=trust))
            continue
        generator = np.random.default_rng([problem.seed % 2**63, number, len(history)])
        training_seed = int(generator.integers(2**31))
        choice = _choose(problem, history, memory, rows, number, effort, found, generator)
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
                gate=trust,
                evidence=choice.item.evidence if choice.item is not None else choice.evidence,
            )
        )
    return proposals


def _without_histories(
    problem: Problem,
    history: History,
    observations: Sequence[Observation],
    pending: Sequence[Array],
    number: int,
    memory: Memory,
    effort: Effort,
) -> Proposal | None:
    """What would be proposed had there never been histories; None where it was tried because of one."""
    encoding = history.encoding
    assert problem.knowledge is not None
    # No more than the portfolio holds: what the cold arm finds on its own later counts, in a small space too.
    shortlist = problem.knowledge.shortlist
    aside = shortlist.places(history.rows) >= 0
    aside &= aside.cumsum() <= len(problem.portfolio)
    running = shortlist.places(np.array(pending)) >= 0
    running &= running.cumsum() <= len(problem.portfolio) - aside.sum()
    waiting = [row for row, known in zip(pending, running.tolist(), strict=True) if not known]
    own = [one for one, known in zip(observations, aside.tolist(), strict=True) if not known]
    (proposal,) = propose(
        replace(problem, portfolio=(), knowledge=None),
        own,
        [encoding.decode(row) for row in waiting],
        1,
        index=max(0, number - int(aside.sum()) - (len(pending) - len(waiting))),
        memory=memory.recall("without histories", Memory),
        effort=effort,
    )
    return None if history.has(encoding.encode(proposal.configuration), pending) else proposal


def trust(problem: Problem, observations: Sequence[Observation], *, memory: Memory | None = None) -> float | None:
    """How far proposals follow the histories now, from 0 to 1; None where there are none that say anything."""
    found = _verdict(problem, (memory or Memory()).history(problem, observations))
    return None if found is None else found.gate


def _verdict(problem: Problem, history: History) -> Verdict | None:
    return verdict(problem.knowledge, history) if problem.knowledge is not None and _listens(problem) else None


def _is_alone(problem: Problem, history: History, pending: Sequence[Array], number: int, found: Verdict | None) -> bool:
    """Whether the proposal is that of the same experiment without histories."""
    if found is None or problem.knowledge is None:
        return False
    if found.gate < _REGAINED and (found.broken or found.beyond):
        return found.broken or _opening_choice(problem, history, pending, number, found) is None
    if not _is_vague(problem) or not 0 < number <= _TESTS:
        return False
    features = [history.features, history.encoding.features(np.array(pending))] if pending else [history.features]
    return not tested(problem.knowledge, np.concatenate(features))


def _is_vague(problem: Problem) -> bool:
    """Whether a cold trial is to tell what the portfolio's first promise is worth: no level does, nor is any history
    known to be much like the task.
    """
    known = problem.knowledge
    return known is not None and known.levels is None and max(known.similarities) < ALIKE and len(problem.portfolio) > 0


def _configuration(problem: Problem, history: History, row: Array, choice: _Choice) -> Configuration:
    """The row as a trial runs it; what was chosen by name to the letter, without a round trip through the cube."""
    if choice.item is not None:
        return dict(choice.item.configuration)
    if choice.origin is Origin.DEFAULT and problem.defaults is not None:
        return dict(problem.defaults)
    return history.encoding.decode(row)


def _listens(problem: Problem) -> bool:
    return problem.proposer in (ProposerName.AUTO, ProposerName.GP)


def opening(problem: Problem) -> list[PortfolioItem | None]:
    """What is worth trying before anything is known of the task; None stands for the expert's default."""
    listed: list[PortfolioItem | None] = []
    if problem.proposer not in (ProposerName.RANDOM, ProposerName.QUASIRANDOM):
        listed.extend(problem.portfolio)
    if problem.defaults is not None:
        listed.insert(1 if listed and problem.network_known else 0, None)
    return listed


def start_length(problem: Problem) -> int:
    """How many proposals come before the model's: two more than dimensions, but not more than six."""
    return min(problem.space.dimensions + 2, _LONGEST_START)


def _start_end(problem: Problem, trust: float | None) -> int:
    """Where the quasi-random proposals end. A portfolio that nothing judges is followed by a look around."""
    if trust is not None:
        return start_length(problem)
    return max(start_length(problem), len(opening(problem)) + (_LOOK_AROUND if problem.portfolio else 0))


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
    found: Verdict | None,
    generator: np.random.Generator,
) -> _Choice:
    chosen = arm(problem)
    trust = None if found is None else found.gate
    encoding = history.encoding
    if chosen is ProposerName.RANDOM:
        return _Choice(encoding.rows(generator.random((1, encoding.width)))[0], Origin.RANDOM)
    cold = trust is None or number % _COLD_EVERY == _COLD_EVERY - 1
    first = _opening_choice(problem, history, pending, number, found)
    if first is not None:
        return first
    belief = _belief(problem, encoding)
    if chosen is ProposerName.QUASIRANDOM or number < _start_end(problem, trust) or len(history) < 2:
        point = quasirandom.point(encoding.width, problem.seed, number)
        if belief is not None and chosen is not ProposerName.QUASIRANDOM:
            point = belief.spread(point)
        row = encoding.rows(point[None, :])[0]
        return _Choice(None if history.has(row, pending) else row, Origin.QUASIRANDOM)
    if chosen is ProposerName.TPE:
        return _Choice(tpe.suggest(history, pending, effort, generator), Origin.TPE)
    settings = cold_gp.settings_for(effort, encoding, informed=belief is not None, prior_mean=problem.prior_mean)
    if trust and problem.knowledge is not None and not cold:
        learned = transfer.suggest(problem.knowledge, history, memory, pending, problem.goal, settings, generator)
        return _Choice(learned.row, Origin.TRANSFER, learned.predicted, evidence=learned.evidence)
    suggestion = cold_gp.suggest(history, memory, pending, problem.goal, settings, generator, belief)
    return _Choice(suggestion.row, Origin.GP, suggestion.predicted)


def _belief(problem: Problem, encoding: Encoding) -> Belief | None:
    return None if problem.defaults is None else Belief(encoding, encoding.encode(problem.defaults))


def _opening_choice(
    problem: Problem, history: History, pending: Sequence[Array], number: int, found: Verdict | None
) -> _Choice | None:
    """The setting of the opening whose turn it is; None where there is none, or it was tried.

    With histories that can be judged, the next one that was not tried, unless the first promise is broken; beyond as
    many as a portfolio holds, while they are trusted, and every third turn is the cold arm's.
    """
    listed: Sequence[PortfolioItem | None] = opening(problem)
    if found is None:
        listed = listed[number : number + 1]
    elif number >= _OPENING or (number >= _undisturbed(problem) and number % _COLD_EVERY == _COLD_EVERY - 1):
        listed = []
    else:
        # That a later item turns out better than the first is no reason to leave the portfolio, which the order of its
        # results alone would be to the gate. Nor does the gate know of controls that brought the portfolio back.
        whole = number < _undisturbed(problem) or found.beyond
        trusted = found.gate >= _TRUSTED or (whole and not found.broken)
        first = [item for item in listed if item is None or item is problem.portfolio[0]]
        listed = [item for item in [*first, *_following(problem, history, pending)] if item is None or trusted]
    for item in listed:
        choice = _first(problem, history.encoding, item)
        if number == 0 or (choice.row is not None and not history.has(choice.row, pending)):
            return choice
    return None


def _undisturbed(problem: Problem) -> int:
    """Up to here the portfolio comes first: one later where a test of it came between."""
    return MAX_ITEMS + _is_vague(problem)


def _following(problem: Problem, history: History, pending: Sequence[Array]) -> list[PortfolioItem]:
    """The item of the portfolio that comes next, as its results tell; none where as many as it holds were tried."""
    if problem.knowledge is None:
        return []
    shortlist = problem.knowledge.shortlist
    ran, running = shortlist.places(history.rows), shortlist.places(np.array(pending))
    known = ran >= 0
    if int(known.sum()) + int((running >= 0).sum()) >= len(problem.portfolio):
        return []
    place = shortlist.following(ran[known].tolist(), history.losses[known], running[running >= 0].tolist())
    return [] if place is None else [shortlist.items[place]]


def _first(problem: Problem, encoding: Encoding, item: PortfolioItem | None) -> _Choice:
    if item is not None:
        return _Choice(encoding.encode(item.configuration), Origin.PORTFOLIO, item=item)
    assert problem.defaults is not None
    return _Choice(encoding.encode(problem.defaults), Origin.DEFAULT)


def _anything_new(history: History, pending: Sequence[Array], generator: np.random.Generator) -> Array:
    """A random row that nobody tried; in a space that is used up, any row."""
    rows = history.encoding.rows(generator.random((_TRIES, history.encoding.width)))
    return next((row for row in rows if not history.has(row, pending)), rows[0])
