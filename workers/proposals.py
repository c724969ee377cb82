"""From rows to values and back: what the meta-learner sees of an experiment, kept warm between calls."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from foretune.errors import NotFound, Unavailable
from foretune.json_types import JsonObject
from foretune.spaces import Configuration, Space
from foretune.states import TrialState
from foretune.wire.experiments import Mode
from metalearner import (
    Curves,
    Effort,
    Memory,
    Observation,
    Problem,
    Proposal,
    ProposerName,
    StoppingPolicy,
    halving,
    propose,
    thresholds,
    trust,
)
from service.db.session import Database
from service.usecases import proposals as usecase
from service.usecases.proposals import SeenTrial, StoredExperiment
from service.usecases.trials import Proposed
from workers.priors import Priors, described, described_gate, evidence_json, priors_of, with_knowledge

_log = structlog.get_logger(__name__)
_KEPT_EXPERIMENTS = 64
_FRESH_S = 0.1
"""Thresholds come from curves that were read within this time: short epochs end every few milliseconds."""
_OUTSTANDING_S = 30.0
"""A proposal that nobody turned into a trial by then is forgotten."""
_TELLING = (TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED, TrialState.COMPLETED, TrialState.STOPPED)


@dataclass
class _Known:
    """One experiment as far as it was read."""

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


class Proposals:
    """Proposes for any experiment, each from one thread at a time; a second instance elsewhere does no harm."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        """For `_known`, not for what is known of an experiment."""

    def propose(self, experiment_id: str, count: int, effort: Effort) -> list[Proposed]:
        """`count` proposals that have seen every result told so far. Raises NotFound."""
        known = self._read(experiment_id, curves=False)
        now = time.monotonic()
        known.outstanding = {
            index: one
            for index, one in known.outstanding.items()
            if one[0] > now and index >= known.experiment.trials_created
        }
        index = max([known.experiment.trials_created, *(index + 1 for index in known.outstanding)])
        observations, pending = known.observations, list(known.unfinished.values())
        if _pauses(known):
            observations, pending = _foreseen(known)
        pending += [configuration for _, configuration in known.outstanding.values()]
        made = propose(known.problem, observations, pending, count, index=index, memory=known.memory, effort=effort)
        for offset, proposal in enumerate(made):
            known.outstanding[index + offset] = (now + _OUTSTANDING_S, proposal.configuration)
        return [
            _proposed(proposal, index + offset, known, len(pending) + offset) for offset, proposal in enumerate(made)
        ]

    def forget_outstanding(self, experiment_id: str) -> None:
        """The proposals of this experiment that are not trials yet will never be."""
        known = self._known.get(experiment_id)
        if known is not None:
            known.outstanding.clear()

    def thresholds(self, experiment_id: str, epochs: Sequence[int]) -> dict[int, float]:
        """What the experiment's stopping policy asks of a trial at these epochs. Raises NotFound."""
        known = self._known.get(experiment_id)
        if known is not None and known.experiment.stopping == StoppingPolicy.NONE:
            return {}
        if known is None or time.monotonic() - known.curves_at > _FRESH_S:
            known = self._read(experiment_id, curves=True)
        if _pauses(known):
            bar = halving.bar(known.problem, known.curves, known.experiment.trials_created)
            return {epoch: bar for epoch in epochs if epoch == halving.rung(known.problem.max_epochs)}
        return thresholds(known.problem, known.curves, StoppingPolicy(known.experiment.stopping), epochs)

    def rung(self, experiment_id: str) -> int | None:
        """The epoch at which trials that fall behind are paused; None where they are stopped. Raises NotFound."""
        known = self._read(experiment_id, curves=False)
        return halving.rung(known.problem.max_epochs) if _pauses(known) else None

    def worthy(self, experiment_id: str) -> tuple[list[str], int]:
        """The paused trials that go on, in this order, and the event up to which was read. Raises NotFound.

        With a target none is given up for falling behind: the most promising goes on when all others are through.
        """
        known = self._read(experiment_id, curves=True)
        waiting = [one for one in known.trials.values() if one.state is TrialState.PAUSED]
        paused = {one.id for one in waiting}
        default = next((one.id for one in waiting if one.configuration == known.problem.defaults), None)
        created = known.experiment.trials_created
        going = halving.worthy(known.problem, known.curves, created, paused, default)
        if not going and known.experiment.target is not None and created >= known.experiment.max_trials:
            # Epochs are left, and what was asked for is not reached.
            telling = [one.id for one in known.trials.values() if one.state in _TELLING]
            ranked = halving.promising(known.problem, [known.curves.curve(one) for one in telling])
            going = [telling[place] for place in ranked if telling[place] in paused]
        return going, known.experiment.event_seq

    def store_thresholds(self, experiment_id: str) -> None:
        """Computes the thresholds and keeps them where the API compares measurements with them. Raises NotFound."""
        known = self._read(experiment_id, curves=True)
        policy = StoppingPolicy(known.experiment.stopping)
        values = thresholds(known.problem, known.curves, policy, range(1, known.curves.last_epoch + 1))
        with self._database.transaction() as tx:
            usecase.store_thresholds(tx, experiment_id, known.points_seq, values)

    def observed(self, experiment_id: str) -> tuple[Problem, list[Observation], dict[str, SeenTrial]]:
        """All that is known of an experiment, for a recommendation. Raises NotFound."""
        known = self._read(experiment_id, curves=False)
        return known.problem, known.observations, known.trials

    def priors(self, experiment_id: str) -> JsonObject:
        """What the experiment learns from, as `foretune.wire.histories.Priors`. Raises NotFound."""
        known = self._read(experiment_id, curves=False)
        believed = trust(known.problem, known.observations, memory=known.memory)
        return {
            "considered": len(known.priors.histories),
            "space": known.priors.space,
            "histories": described(known.problem, known.priors),
            "gate": described_gate(known.problem, believed, len(known.observations)),
        }

    def _read(self, experiment_id: str, *, curves: bool) -> _Known:
        with self._lock:
            known = self._known.pop(experiment_id, None)
        known = self._continued(known, experiment_id, curves=curves)
        if (known.stopped or _pauses(known)) and not known.curved:
            known.curved = True
            known = self._continued(known, experiment_id, curves=True)
            known.observations = [_observation(trial, known) for trial in known.results]
        with self._lock:
            self._known[experiment_id] = known
            while len(self._known) > _KEPT_EXPERIMENTS:
                self._known.popitem(last=False)
        return known

    def _continued(self, known: _Known | None, experiment_id: str, *, curves: bool) -> _Known:
        """What is known by now. Raises NotFound."""
        trials_seq = known.trials_seq if known else 0
        wanted = curves or (known is not None and known.curved)
        points_seq = (known.points_seq if known else 0) if wanted else None
        read_at = time.monotonic()
        with self._database.reading() as tx:
            changes = usecase.changes_since(tx, experiment_id, trials_seq, points_seq)
            defaults: JsonObject = {}
            if known is None and changes.experiment.network:
                defaults = usecase.network_defaults(tx, changes.experiment.network)
        if known is None or known.experiment.space != changes.experiment.space:
            # A widened space is another problem: everything is encoded anew.
            problem = problem_of(changes.experiment, defaults or _defaults(known))
            problem, priors = self._with_histories(problem, changes.experiment, known)
            if known is None:
                known = _Known(changes.experiment, problem, priors, Curves(problem.goal))
            known.problem, known.memory, known.outstanding = problem, Memory(), {}
        known.experiment = changes.experiment
        if wanted:
            known.curves_at = read_at
        _take_in(known, changes)
        return known

    def _with_histories(
        self, problem: Problem, experiment: StoredExperiment, known: _Known | None
    ) -> tuple[Problem, Priors]:
        """Histories are worth a lot, but not the experiment: if they cannot be used, it goes on without."""
        try:
            priors = known.priors if known else priors_of(self._database, experiment)
            return with_knowledge(problem, experiment.network, priors), priors
        except (NotFound, Unavailable):
            raise
        except Exception:  # noqa: BLE001 - whatever a history holds that nobody thought of
            _log.exception("histories_not_used", experiment=experiment.id)
            return problem, Priors()


def problem_of(experiment: StoredExperiment, defaults: JsonObject) -> Problem:
    """The experiment as the meta-learner sees it. `defaults`: the network's."""
    space = Space.from_json(experiment.space)
    return Problem(
        space=space,
        goal=experiment.goal,
        max_epochs=experiment.max_epochs,
        max_trials=experiment.max_trials,
        seed=experiment.seed,
        proposer=ProposerName(experiment.proposer),
        defaults=_within(space, defaults),
        metric=experiment.metric_name,
    )


def _defaults(known: _Known | None) -> JsonObject:
    return dict(known.problem.defaults) if known and known.problem.defaults else {}


def _within(space: Space, defaults: JsonObject) -> Configuration | None:
    """The defaults as a point of this space; None unless every active parameter has one within its range."""
    chosen: Configuration = {}
    for parameter in space.parameters:
        if not space.is_active(parameter, chosen):
            continue
        if parameter.name not in defaults or parameter.problem_with(defaults[parameter.name]):
            return None
        chosen[parameter.name] = defaults[parameter.name]
    return chosen


def _take_in(known: _Known, changes: usecase.Changes) -> None:
    for point in changes.points:
        known.curves.add(point.trial_id, point.epoch, point.value)
    known.points_seq = max(known.points_seq, changes.points_seq)
    results = []
    for trial in changes.trials:
        before = known.trials.get(trial.id)
        known.trials[trial.id] = trial
        if trial.state.finished:
            known.unfinished.pop(trial.id, None)
        else:
            known.unfinished[trial.id] = trial.configuration
        if usecase.is_result(trial) and trial.result_seq is not None and (before is None or not before.state.finished):
            results.append((trial.result_seq, trial))
    arrived = [trial for _, trial in sorted(results, key=lambda result: result[0])]
    known.results += arrived
    known.stopped = known.stopped or any(trial.state is TrialState.STOPPED for trial in arrived)
    known.observations += [_observation(trial, known) for trial in arrived]
    known.trials_seq = changes.trials_seq


def _pauses(known: _Known) -> bool:
    """Whether AUTO pauses: where trials are the service's own to thaw. With histories the first trials are good ones,
    and their results are waited for.
    """
    one = known.experiment
    managed = one.mode == Mode.MANAGED and one.stopping == StoppingPolicy.AUTO
    many = one.max_trials >= halving.LEAST_TRIALS
    return managed and many and known.problem.knowledge is None and halving.rung(one.max_epochs) is not None


def _foreseen(known: _Known) -> tuple[list[Observation], list[Configuration]]:
    """What trials would come to, wherever they stand; and the configurations of those that say nothing yet."""
    infeasible = [one for one in known.observations if one.infeasible]
    others = [
        (one.configuration, known.curves.curve(one.id))
        for one in sorted(known.trials.values(), key=lambda one: one.number)
        if one.state in _TELLING
    ]
    told, silent = halving.foreseen(known.problem, others)
    return infeasible + told, silent


def _observation(trial: SeenTrial, known: _Known) -> Observation:
    infeasible, finished = trial.state is TrialState.INFEASIBLE, trial.state is TrialState.COMPLETED
    return Observation(
        configuration=trial.configuration,
        value=None if infeasible else trial.best_value,
        curve=known.curves.curve(trial.id) if finished and known.curved else (),
        finished=finished,
        infeasible=infeasible,
        epochs=trial.epochs,
    )


def _proposed(proposal: Proposal, index: int, known: _Known, pending: int) -> Proposed:
    predicted: JsonObject | None = None
    if proposal.predicted is not None:
        prediction = proposal.predicted
        predicted = {"median": prediction.median, "low": prediction.low, "high": prediction.high}
    replay: JsonObject = {
        "seed": proposal.seed,
        "index": index,
        "seen_results": proposal.seen,
        "seen_event": known.trials_seq,
        "effort": proposal.effort.value,
        "pending": pending,
    }
    if known.priors.histories:
        replay["histories"] = known.priors.seen
    if known.problem.knowledge is not None and proposal.gate is not None:
        replay["knowledge"] = known.problem.knowledge.digest
        replay["gate"] = proposal.gate
    if proposal.item is not None:
        replay["predicted_rank"] = proposal.item.predicted_rank
    if proposal.evidence:
        replay["evidence"] = evidence_json(proposal.evidence)
    return Proposed(proposal.configuration, proposal.origin.value, predicted, replay)
