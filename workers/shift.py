"""A shift: a worker takes an experiment's open trials, trains for a bounded time, reports, and hands back.

The loop reads top to bottom in `Shift.run`. No transaction is open while a network trains; every report is one short
transaction with the measurements, the newest checkpoints and the event log. A worker that is killed leaves leases that
run out; one that is asked to stop keeps checkpoints and frees its trials at the next epoch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import structlog

from foretune.errors import ForetuneError, InvalidRequest, NotFound, TrialInfeasible, Unavailable
from foretune.json_types import JsonObject
from foretune.states import ExperimentState
from metalearner import Effort
from service.settings import settings
from service.usecases import outcomes, shifts
from service.usecases.proposals import StoredExperiment, StoredTrial
from service.usecases.shifts import TrialReport, Verdict
from workers.checkpoint_ring import CheckpointRings
from workers.engine import Engine, EpochReport, FailureKind, InvalidCheckpoint, TrialSpec
from workers.heartbeat import Heartbeat
from workers.process import WorkerProcess
from workers.proposals import Proposals
from workers.training import TrainingTask, TrainingTasks, device_name, precision

_REPORT_EVERY_S = 0.05
"""Epochs that end within this time share a transaction."""
_SHORT_TRIAL_S = 0.5
"""A trial that trains for less is not worth a proposal of twenty milliseconds."""
_RETRY_S = 0.5
_LEAVE_S = 1.0
"""How long other workers have to take their share of an experiment before this one takes it as well."""
_ALONE_S = 10.0
"""How long it then goes on without leaving anything: by then another may be there."""
_GIVE_UP_S = 120.0
"""How long a shift waits for a database that is away; its trials are freed by their leases anyway."""

_log = structlog.get_logger(__name__)
_warm = threading.local()


@dataclass
class _Held:
    """A trial in a slot of this shift."""

    trial: StoredTrial
    kept_at: float
    """When its state was last kept in a checkpoint."""
    measured: list[outcomes.Measured] = field(default_factory=list)
    last: EpochReport | None = None


class Shift:
    """One shift on one experiment."""

    def __init__(self, process: WorkerProcess, experiment_id: str) -> None:
        self._process = process
        self._experiment_id = experiment_id
        self._held: dict[str, _Held] = {}
        self._taken: dict[str, int] = {}
        """Trials that this worker has, and their attempts, until they are in a slot or refused."""
        self._heartbeat = Heartbeat(process)
        self._checkpoints = CheckpointRings(process.artifacts, experiment_id)
        self._over = False
        self._ended, self._trained_s = 0, 0.0
        """The trials that ended in this shift, and how long they trained in it."""
        self._left_at: float | None = None
        """Since when slots are left to others."""
        self._alone_until = 0.0
        self._fill_at = math.inf
        """When to look again for work, whether or not a slot becomes free."""
        if not hasattr(_warm, "tasks"):
            _warm.tasks, _warm.proposals = TrainingTasks(process), Proposals(process.database)
        self._tasks: TrainingTasks = _warm.tasks
        self._proposals: Proposals = _warm.proposals

    def run(self) -> None:
        """Trains until the experiment has nothing more to do, the time is up or the worker is asked to stop."""
        try:
            claim = self._claim(1)
        except Exception as error:
            self._abandon({}, error)
            raise
        if claim is None:
            return
        try:
            task = self._tasks.of(claim.experiment)
            engine = Engine(task.network, task.data, device_name(), precision=precision())
        except (NotFound, InvalidRequest) as error:
            self._fail(f"its data or network cannot be used: {error.message}")
            return
        except Exception as error:
            self._abandon(_attempts(claim.trials), error)
            raise
        with self._heartbeat:
            try:
                self._train(engine, task, claim)
            except NotFound:
                _log.info("experiment_deleted", experiment=self._experiment_id)
                self._checkpoints.delete_all()
            except Exception as error:
                self._abandon(self._leases(), error)
                raise

    def _train(self, engine: Engine, task: TrainingTask, claim: shifts.Claim) -> None:
        deadline = time.monotonic() + settings().foretune_shift_s
        self._admit(engine, task, claim)
        self._fill(engine, task)
        reported_at = 0.0
        while engine.live and not self._over:
            reports = engine.advance(timeout_s=_REPORT_EVERY_S)
            self._note(reports, task)
            now = time.monotonic()
            ended = any(report.finished or report.epoch == self._rung for report in reports)
            freed = False
            if ended or now - reported_at >= _REPORT_EVERY_S or self._may_end(claim.experiment):
                freed = self._report(engine)
                reported_at = time.monotonic()
            if self._process.draining():
                self._keep_all(engine)
                break
            if now >= deadline and self._process.bus.waiting_to_train() > 0:
                if self._keep_all(engine):
                    break
                # Freed without a checkpoint, the trials would be trained again, in every turn.
                deadline = now + settings().foretune_shift_s
            if freed or now >= self._fill_at:
                self._fill(engine, task)
        else:
            self._keep_all(engine)
        self._hand_back()

    def _may_end(self, experiment: StoredExperiment) -> bool:
        """Whether what was measured since the last report may end the experiment: then it does not wait for company."""
        if experiment.max_total_epochs is not None or experiment.max_seconds is not None:
            return True
        target, goal = experiment.target, experiment.goal
        if target is None:
            return False
        measured = [one.value for held in self._held.values() for one in held.measured if one.value is not None]
        return any(not goal.better(target, value) for value in measured)

    def _claim(self, slots: int, *, leave: bool = False) -> shifts.Claim | None:
        try:
            # On a CPU as much is trained by fewer trials at a time, and the sooner the good ones are through.
            narrow = self._rung is not None and device_name().startswith("cpu")
            with self._process.database.transaction() as tx:
                return shifts.claim(
                    *(tx, self._process.bus, self._experiment_id, self._process.id, slots), leave=leave, narrow=narrow
                )
        except NotFound:
            return None
        except Unavailable as error:
            # What is in the slots goes on; the free ones wait.
            _log.warning("nothing_claimed", error=error.message)
            return None

    @cached_property
    def _rung(self) -> int | None:
        """The epoch at which trials may pause; None where they do not. Raises NotFound, Unavailable."""
        return self._proposals.rung(self._experiment_id)

    def _fill(self, engine: Engine, task: TrainingTask) -> None:
        """Fills the free slots: trials that wait first, then new proposals; a share of them while others could help."""
        self._fill_at = math.inf
        while engine.free and not self._over:
            now, slots = time.monotonic(), engine.free
            claim = self._claim(slots, leave=now >= self._alone_until)
            if claim is None:
                return
            granted = len(claim.trials) + claim.open_slots
            admitted = self._admit(engine, task, claim)
            if claim.left_over and self._left_at is not None and now - self._left_at >= _LEAVE_S:
                self._left_at, self._alone_until = None, now + _ALONE_S
                continue
            self._left_at = (self._left_at or now) if claim.left_over else None
            if claim.left_over:
                self._fill_at = now + _RETRY_S
            elif admitted < granted and claim.experiment.trials_created < claim.experiment.max_trials:
                # Another worker was faster, and proposals must know of its trials.
                self._fill_at = now + _REPORT_EVERY_S
            if self._fill_at < math.inf or admitted < slots:
                return

    def _admit(self, engine: Engine, task: TrainingTask, claim: shifts.Claim) -> int:
        """Puts claimed trials, thawed ones and new proposals into slots; how many there were."""
        trials = list(claim.trials)
        self._taken = _attempts(trials)
        open_slots = claim.open_slots
        if open_slots > 0 and claim.experiment.trials_paused:
            thawed = self._thaw(open_slots)
            trials += thawed
            open_slots -= len(thawed)
        open_slots = min(open_slots, claim.experiment.max_trials - claim.experiment.trials_created)
        if open_slots > 0 and not self._over:
            trials += self._propose(open_slots)
        self._taken = _attempts(trials)
        for trial in trials:
            self._admit_one(engine, task, claim.experiment, trial)
            del self._taken[trial.id]
        return len(trials)

    def _thaw(self, count: int) -> list[StoredTrial]:
        try:
            worthy, seen = self._proposals.worthy(self._experiment_id)
            with self._process.database.transaction() as tx:
                return shifts.thaw(tx, self._process.bus, self._experiment_id, self._process.id, worthy, count, seen)
        except Unavailable as error:
            _log.warning("nothing_thawed", error=error.message)
            return []

    @property
    def _effort(self) -> Effort:
        short = self._ended > 0 and self._trained_s < _SHORT_TRIAL_S * self._ended
        return Effort.FAST if short else Effort.THOROUGH

    def _propose(self, count: int) -> list[StoredTrial]:
        try:
            proposed = self._proposals.propose(self._experiment_id, count, self._effort)
            with self._process.database.transaction() as tx:
                started = shifts.start(tx, self._process.bus, self._experiment_id, self._process.id, proposed)
            if len(started) < len(proposed):
                self._proposals.forget_outstanding(self._experiment_id)
            return started
        except Unavailable as error:
            _log.warning("nothing_started", error=error.message)
            return []

    def _admit_one(self, engine: Engine, task: TrainingTask, experiment: StoredExperiment, trial: StoredTrial) -> None:
        if trial.id in self._held:
            # Its lease ran out while this worker was cut off; freed, it came back before anybody noticed here.
            self._forget(engine, trial.id)
        refused: TrialReport | None = None
        try:
            self._house(engine, task.spec(experiment, trial), trial)
        except TrialInfeasible as error:
            refused = TrialReport(trial.id, trial.attempts, infeasible=error.message)
        except ForetuneError as error:
            refused = TrialReport(trial.id, trial.attempts, failed=error.message)
        if refused is not None:
            self._send([refused])
            return
        self._held[trial.id] = _Held(trial, time.monotonic())
        self._checkpoints.hold(trial)
        self._heartbeat.hold(trial.id, trial.attempts)

    def _house(self, engine: Engine, spec: TrialSpec, trial: StoredTrial) -> None:
        """Admits the trial where its newest good checkpoint stands.

        One that is gone, damaged, or of a network that was changed since costs time, not the trial: it goes on from the
        one before or starts anew, and the epochs that were measured stay as they are.
        """
        for checkpoint in self._checkpoints.read(trial):
            try:
                engine.admit(spec, checkpoint)
            except InvalidCheckpoint as error:
                _log.warning("checkpoint_not_usable", trial=trial.id, error=error.message)
            else:
                return
        engine.admit(spec)

    def _note(self, reports: list[EpochReport], task: TrainingTask) -> None:
        for report in reports:
            held = self._held[report.trial_id]
            held.last = report
            self._ended += report.finished or report.epoch == self._rung
            self._trained_s += report.seconds
            if report.failure is None:
                value = report.metrics.get(task.metric)
                held.measured.append(outcomes.Measured(report.epoch, value, report.seconds, dict(report.metrics)))

    def _report(self, engine: Engine) -> bool:
        """Sends what happened since the last report, with a fresh checkpoint where the last one is old.

        Says whether a slot became free.
        """
        held_before = len(self._held)
        lost = self._heartbeat.lost()
        reports = []
        for trial_id, held in list(self._held.items()):
            if trial_id in lost:
                self._forget(engine, trial_id)
            elif held.measured or (held.last is not None and held.last.finished):
                reports.append(self._report_of(engine, held))
        verdicts = self._send(reports) if reports else {}
        for trial_id, verdict in verdicts.items():
            self._held[trial_id].measured = []
            if verdict is not Verdict.CONTINUE:
                self._forget(engine, trial_id)
        return len(self._held) < held_before

    def _report_of(self, engine: Engine, held: _Held) -> TrialReport:
        last, trial = held.last, held.trial
        if last is not None and last.failure is not None:
            error = last.failure_kind is FailureKind.ERROR
            return TrialReport(
                trial.id,
                trial.attempts,
                tuple(held.measured),
                failed=last.failure if error else None,
                infeasible=None if error else last.failure,
            )
        finished = last is not None and last.finished
        pauses = last is not None and last.epoch == self._rung
        old = time.monotonic() - held.kept_at >= settings().foretune_checkpoint_every_s
        checkpoint = self._keep(engine, held, finished=finished) if finished or pauses or old else None
        return TrialReport(trial.id, trial.attempts, tuple(held.measured), checkpoint, finished=finished)

    def _keep(self, engine: Engine, held: _Held, *, finished: bool = False) -> JsonObject | None:
        checkpoint = self._checkpoints.write(held.trial, engine.snapshot(held.trial.id), finished=finished)
        if checkpoint is not None:
            held.kept_at = time.monotonic()
        return checkpoint

    def _send(self, reports: list[TrialReport]) -> dict[str, Verdict]:
        """Reports in one transaction; waits for a database that is away, with everything still in memory."""
        epochs = sorted({max(one.epoch for one in report.measured) for report in reports if report.measured})
        thresholds = self._proposals.thresholds(self._experiment_id, epochs)
        give_up_at = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                with self._process.database.transaction() as tx:
                    answer = shifts.report(
                        tx, self._process.bus, self._experiment_id, reports, thresholds, pauses=self._rung is not None
                    )
                break
            except Unavailable:
                if time.monotonic() > give_up_at or self._process.draining():
                    # Whoever asked this worker to stop does not wait long: the leases will free its trials.
                    raise
                time.sleep(_RETRY_S)
        self._over = answer.state is not ExperimentState.RUNNING
        for report in reports:
            if report.checkpoint is not None:
                self._checkpoints.settle(report.trial_id, report.checkpoint, kept=report.trial_id in answer.kept)
        return answer.verdicts

    def _forget(self, engine: Engine, trial_id: str) -> None:
        self._held.pop(trial_id)
        self._checkpoints.drop(trial_id)
        self._heartbeat.drop(trial_id)
        engine.release(trial_id)

    def _keep_all(self, engine: Engine) -> bool:
        """Reports, with a checkpoint of every trial that still runs. Says whether all of them were kept."""
        self._report(engine)
        reports = [
            TrialReport(held.trial.id, held.trial.attempts, checkpoint=self._keep(engine, held))
            for held in self._held.values()
        ]
        if reports:
            self._send(reports)
        return all(one.checkpoint is not None for one in reports)

    def _hand_back(self) -> None:
        """Frees every trial that still runs."""
        with self._process.database.transaction() as tx:
            shifts.hand_back(tx, self._process.bus, self._experiment_id, self._leases(), again=True)

    def _leases(self) -> dict[str, int]:
        return {trial_id: held.trial.attempts for trial_id, held in self._held.items()} | self._taken

    def _abandon(self, leases: dict[str, int], error: Exception) -> None:
        """After an error that the experiment may meet again; what is away comes back, and is not held against it."""
        try:
            with self._process.database.transaction() as tx:
                if isinstance(error, Unavailable):
                    shifts.hand_back(tx, self._process.bus, self._experiment_id, leases, again=False)
                else:
                    why = f"{type(error).__name__}: {error}"
                    shifts.abandon(tx, self._process.bus, self._experiment_id, leases, why)
        except ForetuneError as unable:
            _log.warning("not_handed_back", experiment=self._experiment_id, error=unable.message)

    def _fail(self, reason: str) -> None:
        with self._process.database.transaction() as tx:
            shifts.fail(tx, self._process.bus, self._experiment_id, reason)


def _attempts(trials: Sequence[StoredTrial]) -> dict[str, int]:
    """Leases, as `service.usecases.shifts` takes them."""
    return {trial.id: trial.attempts for trial in trials}
