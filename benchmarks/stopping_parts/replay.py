"""An experiment replayed on known curves: eight slots, an epoch at a time, with a policy that stops and a proposer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.stopping_parts.policies import Policy, Seen
from benchmarks.stopping_parts.tasks import CurveTask
from foretune.metrics import Goal
from foretune.spaces import Configuration
from metalearner import Curves, Effort, Memory, Observation, Problem, propose

Proposer: TypeAlias = Literal["random", "foretune"]
_SLOTS = 8


@dataclass(frozen=True)
class Replay:
    """`spent` and `found` (ticks,): epochs spent so far and the regret of the best value found by then."""

    task: str
    group: str
    seed: int
    spent: tuple[int, ...]
    found: tuple[float, ...]
    best_stopped: bool
    """Whether a trial was stopped that would have come to more than all that was found."""

    def found_after(self, epochs: float) -> float:
        """The regret when so many epochs were spent."""
        return self.found[max(0, min(len(self.found), int(np.searchsorted(self.spent, epochs, "right"))) - 1)]


class _RandomRows:
    """Each trial once, in random order."""

    def __init__(self, task: CurveTask, seed: int) -> None:
        self._order = iter(np.random.default_rng(seed).permutation(len(task.merits)).tolist())

    def ask(self, count: int, _: Sequence[int]) -> list[int]:
        return [next(self._order) for _ in range(count)]

    def tell(self, number: int, merit: float, epochs: int, *, finished: bool) -> None: ...


class _Foretune:
    """The real proposer; a proposal is the row nearest to it."""

    def __init__(self, task: CurveTask, seed: int, trials: int) -> None:
        assert task.table is not None
        self._table, self._goal, self._best = task.table, task.goal, task.best
        self._problem = Problem(task.table.space, task.goal, task.merits.shape[1], trials, seed)
        self._memory = Memory()
        self._asked: list[Configuration] = []
        self._rows: list[int] = []
        self._results: list[Observation] = []

    def ask(self, count: int, running: Sequence[int]) -> list[int]:
        made = propose(
            self._problem,
            self._results,
            [self._asked[number] for number in running],
            count,
            index=len(self._asked),
            memory=self._memory,
            effort=Effort.FAST,
        )
        self._asked += [proposal.configuration for proposal in made]
        places = [self._table.place(proposal.configuration) for proposal in made]
        self._rows += places
        return places

    def tell(self, number: int, merit: float, epochs: int, *, finished: bool) -> None:
        bad = not np.isfinite(merit)
        value = None if bad else self._goal.sign * merit
        done = finished and not bad
        curve = tuple((self._goal.sign * self._best[self._rows[number]]).tolist()) if done else ()
        self._results.append(Observation(self._asked[number], value, curve, done, bad, epochs))


def replay(task: CurveTask, policy: Policy, seed: int, trials: int, proposer: Proposer) -> Replay:
    """One experiment of so many trials."""
    trials = min(trials, len(task.merits))
    asker = _RandomRows(task, seed) if proposer == "random" else _Foretune(task, seed, trials)
    best, max_epochs = task.best, task.merits.shape[1]
    seen = Seen(np.full((trials, max_epochs), np.nan), np.zeros(trials, dtype=bool), Curves(Goal.MAXIMIZE))
    rows: list[int] = []
    ages: list[int] = []
    running: list[int] = []
    spent, found, incumbent, promise = [0], [float("inf")], -np.inf, -np.inf
    while True:
        free = min(_SLOTS - len(running), trials - len(rows))
        if free:
            places = asker.ask(free, running)
            running += range(len(rows), len(rows) + free)
            rows, ages = rows + places, ages + [0] * free
        if not running:
            break
        for number in running:
            ages[number] += 1
            merit = best[rows[number], ages[number] - 1]
            seen.bests[number, ages[number] - 1] = merit
            seen.curves.add(str(number), ages[number], float(task.merits[rows[number], ages[number] - 1]))
            incumbent = max(incumbent, merit)
        spent.append(spent[-1] + len(running))
        found.append(task.regret(incumbent))
        asked = {age: policy(seen, age, max_epochs) for age in {ages[number] for number in running} - {max_epochs}}
        going = []
        for number in running:
            row, age = rows[number], ages[number]
            merit, needed = best[row, age - 1], asked.get(age)
            diverged = not np.isfinite(task.merits[row, age - 1])
            behind = needed is not None and merit < needed
            if age < max_epochs and not diverged and not behind:
                going.append(number)
                continue
            seen.finished[number] = age == max_epochs and not diverged
            promise = max(promise, best[row, -1] if age < max_epochs and not diverged else -np.inf)
            asker.tell(number, -np.inf if diverged else merit, age, finished=age == max_epochs)
        running = going
    return Replay(task.name, task.group, seed, tuple(spent[1:]), tuple(found[1:]), bool(promise > incumbent))
