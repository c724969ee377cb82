"""From rows to values and back: what the meta-learner sees of an experiment, kept warm between calls."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

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
    known_mean,
    propose,
    thresholds,
    trust,
)
from service.db.session import Database
from service.usecases import proposals as usecase
from service.usecases.proposals import SeenTrial, StoredExperiment, ToldEnding
from service.usecases.trials import Proposed
from workers.known import Known
from workers.priors import Priors, described, described_gate, evidence_json, priors_of, with_knowledge

_log = structlog.get_logger(__name__)
_KEPT_EXPERIMENTS = 64
_FRESH_S = 0.1
"""Thresholds come from curves that were read within this time: short epochs end every few milliseconds."""
_TELLING = (TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED, TrialState.COMPLETED, TrialState.STOPPED)


class Proposals:
    """Proposes for any experiment, each from one thread at a time; a second instance elsewhere does no harm."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()
        """For `_known`, not for what is known of an experiment."""

    def propose(
        self, experiment_id: str, count: int, effort: Effort, told: Sequence[ToldEnding] = ()
    ) -> list[Proposed]:
        """`count` proposals that have seen every result told so far, and those that are `told`. Raises NotFound."""
        known = self._read(experiment_id, curves=False)
        now = time.monotonic()
        known.hear(told, now)
        index = known.next_index(now)
        observations, pending = known.observations, list(known.unfinished.values())
        if _pauses(known):
            observations, pending = _foreseen(known)
        pending += [configuration for _, configuration in known.outstanding.values()]
        made = propose(known.problem, observations, pending, count, index=index, memory=known.memory, effort=effort)
        for offset, proposal in enumerate(made):
            known.note_proposed(index + offset, proposal.configuration, now)
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

    def _read(self, experiment_id: str, *, curves: bool) -> Known:
        with self._lock:
            known = self._known.pop(experiment_id, None)
        known = self._continued(known, experiment_id, curves=curves)
        if (known.stopped or _pauses(known)) and not known.curved:
            known.curved = True
            known = self._continued(known, experiment_id, curves=True)
            known.observe_anew()
        with self._lock:
            self._known[experiment_id] = known
            while len(self._known) > _KEPT_EXPERIMENTS:
                self._known.popitem(last=False)
        return known

    def _continued(self, known: Known | None, experiment_id: str, *, curves: bool) -> Known:
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
                known = Known(changes.experiment, problem, priors, Curves(problem.goal))
            known.problem, known.memory, known.outstanding = problem, Memory(), {}
        known.experiment = changes.experiment
        if wanted:
            known.curves_at = read_at
        known.take_in(changes)
        return known

    def _with_histories(
        self, problem: Problem, experiment: StoredExperiment, known: Known | None
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
    space, known = Space.from_json(experiment.space), known_mean(experiment.network)
    return Problem(
        space=space,
        goal=experiment.goal,
        max_epochs=experiment.max_epochs,
        max_trials=experiment.max_trials,
        seed=experiment.seed,
        proposer=ProposerName(experiment.proposer),
        defaults=_within(space, defaults),
        metric=experiment.metric_name,
        prior_mean=known and known.where(experiment.fixed),
    )


def _defaults(known: Known | None) -> JsonObject:
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


def _pauses(known: Known) -> bool:
    """Whether AUTO pauses: where trials are the service's own to thaw. With histories the first trials are good ones,
    and their results are waited for.
    """
    one = known.experiment
    managed = one.mode == Mode.MANAGED and one.stopping == StoppingPolicy.AUTO
    many = one.max_trials >= halving.LEAST_TRIALS
    return managed and many and known.problem.knowledge is None and halving.rung(one.max_epochs) is not None


def _foreseen(known: Known) -> tuple[list[Observation], list[Configuration]]:
    """What trials would come to, wherever they stand; and the configurations of those that say nothing yet."""
    infeasible = [one for one in known.observations if one.infeasible]
    others = [
        (one.configuration, known.curves.curve(one.id))
        for one in sorted(known.trials.values(), key=lambda one: one.number)
        if one.state in _TELLING
    ]
    told, silent = halving.foreseen(known.problem, others)
    return infeasible + told, silent


def _proposed(proposal: Proposal, index: int, known: Known, pending: int) -> Proposed:
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
    if known.told:
        replay["told"] = list(known.told)
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
