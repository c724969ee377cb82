"""A whole job on a landscape, ours and Optuna's: the best value after each epoch that was trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import optuna

from benchmarks.rehearsal_parts.landscape import Landscape
from benchmarks.tuning_peer import sampler_and_pruner, suggest
from benchmarks.tuning_task import EPOCHS, NETWORK, TRIALS
from foretune.metrics import Goal
from metalearner import Curves, Effort, Memory, Problem, halving, known_mean, propose
from metalearner.arrays import Array
from workers.networks import get_network

_SLOTS = 4


class OurJob:
    """Proposals and halving as in a managed job of one worker on a CPU, four trials at a time, epochs equally long."""

    def __init__(self, landscape: Landscape, seed: int, effort: Effort) -> None:
        self._landscape, self._effort, self._memory = landscape, effort, Memory()
        self._generator = np.random.default_rng([seed, 5])
        network = get_network(NETWORK)
        default = network.default_configuration(network.space)
        self._problem = Problem(
            network.space, Goal.MAXIMIZE, EPOCHS, TRIALS, seed, defaults=default, prior_mean=known_mean(NETWORK)
        )
        self._curves = Curves(Goal.MAXIMIZE)
        self._trials: dict[str, tuple[dict[str, object], Array]] = {}
        self._running: list[str] = []
        self._paused: set[str] = set()

    def run(self) -> Iterator[float]:
        """The value of each epoch, in the order in which they are trained, until all trials are through."""
        self._fill()
        while self._running:
            for trial in list(self._running):
                epoch = len(self._curves.curve(trial)) + 1
                value = float(self._trials[trial][1][epoch - 1])
                self._curves.add(trial, epoch, value)
                yield value
                if epoch == EPOCHS or epoch == halving.rung(EPOCHS):
                    self._running.remove(trial)
                    if epoch < EPOCHS:
                        self._paused.add(trial)
            self._fill()

    def _fill(self) -> None:
        while len(self._running) < _SLOTS:
            trial = self._thawed() or self._proposed()
            if trial is None:
                return
            self._running.append(trial)

    def _thawed(self) -> str | None:
        created = len(self._trials)
        default = next((one for one in self._paused if self._trials[one][0] == self._problem.defaults), None)
        going = halving.worthy(self._problem, self._curves, created, self._paused, default)
        if not going and created >= TRIALS:  # as with a target that is not reached
            names = list(self._trials)
            ranked = halving.promising(self._problem, [self._curves.curve(name) for name in names])
            going = [names[place] for place in ranked if names[place] in self._paused]
        self._paused -= set(going[:1])
        return going[0] if going else None

    def _proposed(self) -> str | None:
        index = len(self._trials)
        if index >= TRIALS:
            return None
        told, silent = halving.foreseen(
            self._problem, [(chosen, self._curves.curve(name)) for name, (chosen, _) in self._trials.items()]
        )
        (proposal,) = propose(self._problem, told, silent, 1, index=index, memory=self._memory, effort=self._effort)
        name = f"trial-{index}"
        self._trials[name] = (proposal.configuration, self._landscape.curve(proposal.configuration, self._generator))
        return name


def optunas(landscape: Landscape, seed: int) -> Iterator[float]:
    """The same job by Optuna's TPE and Hyperband, one trial at a time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    generator = np.random.default_rng([seed, 6])
    study = optuna.create_study(direction="maximize", **sampler_and_pruner(seed))  # type: ignore[arg-type]
    for _ in range(TRIALS):
        trial = study.ask()
        values = landscape.curve(suggest(trial), generator).tolist()
        for epoch, value in enumerate(values, start=1):
            yield value
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(values))
