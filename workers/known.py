"""One experiment as far as a process has read of it, and heard of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from foretune.spaces import Configuration
from foretune.states import TrialState
from metalearner import Curves, Memory, Observation, Problem
from service.usecases import proposals as usecase
from service.usecases.proposals import SeenTrial, StoredExperiment, ToldEnding
from workers.priors import Priors

_OUTSTANDING_S = 30.0
"""A proposal that nobody turned into a trial by then is forgotten, and so is an ending that was never written."""


@dataclass
class Known:
    """What proposals and thresholds are computed from."""

    experiment: StoredExperiment
    problem: Problem
    priors: Priors
    curves: Curves
    trials_seq: int = 0
    points_seq: int = 0
    trials: dict[str, SeenTrial] = field(default_factory=dict)
    unfinished: dict[str, Configuration] = field(default_factory=dict)
    """Of the trials, those that run or wait, by id."""
    results: list[SeenTrial] = field(default_factory=list)
    """Of the trials, those that say something of their configuration, in the order of their arrival."""
    observations: list[Observation] = field(default_factory=list)
    """The results as the meta-learner sees them."""
    stopped: bool = False
    """Whether some trial was stopped early."""
    curved: bool = False
    """Whether observations have curves: from then on."""
    curves_at: float = -math.inf
    """When curves were read last."""
    memory: Memory = field(default_factory=Memory)
    outstanding: dict[int, tuple[float, Configuration]] = field(default_factory=dict)
    """Proposals by index that are not trials yet, with the time at which they are given up."""
    told: dict[str, tuple[float, SeenTrial]] = field(default_factory=dict)
    """Trials that were told to have ended and still run by what was read: until when that is believed, and as read."""

    def take_in(self, changes: usecase.Changes) -> None:
        """What was read since the last time."""
        for point in changes.points:
            self.curves.add(point.trial_id, point.epoch, point.value)
        self.points_seq = max(self.points_seq, changes.points_seq)
        results = []
        for trial in changes.trials:
            if trial.id in self.told and self._bears_out(trial):
                continue
            before = self.trials.get(trial.id)
            self._place(trial)
            is_new = before is None or not before.state.finished
            if usecase.is_result(trial) and trial.result_seq is not None and is_new:
                results.append((trial.result_seq, trial))
        self._add_results([trial for _, trial in sorted(results, key=lambda result: result[0])])
        self.trials_seq = changes.trials_seq

    def hear(self, told: Sequence[ToldEnding], now: float) -> None:
        """Endings that are results before they are written: they will be, together with what is proposed now.

        What did not come true in time is taken back.
        """
        for trial_id in [trial_id for trial_id, (until, _) in self.told.items() if until < now]:
            self._take_back(trial_id)
        for one in told:
            trial = self.trials.get(one.trial_id)
            if trial is None or trial.state is not TrialState.RUNNING:
                continue  # It was read already, or somebody else has it.
            self.told[trial.id] = now + _OUTSTANDING_S, trial
            ended = trial._replace(state=one.state, best_value=one.best_value)
            self._place(ended)
            if usecase.is_result(ended):
                self._add_results([ended])

    def next_index(self, now: float) -> int:
        """The index of the next proposal, after those that are trials and those that may still become one."""
        created = self.experiment.trials_created
        self.outstanding = {index: one for index, one in self.outstanding.items() if one[0] > now and index >= created}
        return max([created, *(index + 1 for index in self.outstanding)])

    def note_proposed(self, index: int, configuration: Configuration, now: float) -> None:
        self.outstanding[index] = now + _OUTSTANDING_S, configuration

    def observe_anew(self) -> None:
        """Makes the observations again, from what is known by now."""
        self.observations = [self._observation(trial) for trial in self.results]

    def _bears_out(self, trial: SeenTrial) -> bool:
        """Whether a trial, as it was read, is or may still become what was told of it; if not, that is taken back."""
        until, _ = self.told[trial.id]
        heard = self.trials[trial.id]
        if trial.state is TrialState.RUNNING:
            self.told[trial.id] = until, trial
            return True
        if (trial.state, trial.best_value) == (heard.state, heard.best_value):
            del self.told[trial.id]
            self.trials[trial.id] = trial
            return True
        self._take_back(trial.id)
        return False

    def _take_back(self, trial_id: str) -> None:
        _, trial = self.told.pop(trial_id)
        self._place(trial)
        self.results = [one for one in self.results if one.id != trial_id]
        self.observe_anew()

    def _place(self, trial: SeenTrial) -> None:
        self.trials[trial.id] = trial
        if trial.state.finished:
            self.unfinished.pop(trial.id, None)
        else:
            self.unfinished[trial.id] = trial.configuration

    def _add_results(self, arrived: Sequence[SeenTrial]) -> None:
        self.results += arrived
        self.stopped = self.stopped or any(trial.state is TrialState.STOPPED for trial in arrived)
        self.observations += map(self._observation, arrived)

    def _observation(self, trial: SeenTrial) -> Observation:
        infeasible, finished = trial.state is TrialState.INFEASIBLE, trial.state is TrialState.COMPLETED
        return Observation(
            configuration=trial.configuration,
            value=None if infeasible else trial.best_value,
            curve=self.curves.curve(trial.id) if finished and self.curved else (),
            finished=finished,
            infeasible=infeasible,
            epochs=trial.epochs,
        )
