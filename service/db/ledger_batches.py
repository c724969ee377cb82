"""Work that waits for the same experiment shares a transaction.

An experiment's ledger lets one transaction in at a time, and holds it until the commit is on the disk: some
milliseconds, in which clients of that experiment queue up. Here whatever has queued up by then is done in one
transaction, in the order in which it came: one lock, one write, one commit. The more clients, the more share one.
And where nobody else writes to the experiment, the write is all that is left of it (`service.db.ledger_memory`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from foretune.errors import ForetuneError, Unavailable
from service.db.experiments import StoredExperiment
from service.db.ledger import Ledger, Wake
from service.db.ledger_memory import LedgerFromMemory, LedgerMemory, Left, NotFromMemory
from service.db.session import Database, Transaction
from service.db.trials import StoredTrial

_T = TypeVar("_T")
Work = Callable[[Ledger], _T]
"""What is done under the lock. If it raises, then before it notes anything; it may be called a second time."""
_MOST_TOGETHER = 64
_REMEMBERED_TRIALS = 50_000


@dataclass(frozen=True)
class _Key:
    """What is locked: an experiment, or a trial whose experiment is not known yet."""

    project: str
    experiment_id: str | None
    trial_id: str | None = None


@dataclass(frozen=True)
class _Job(Generic[_T]):
    work: Work[_T]
    trial_id: str | None
    done: asyncio.Future[_T]


@dataclass(frozen=True)
class _Outcome:
    """What became of a job: its result or its error."""

    result: object = None
    error: BaseException | None = None


class _Spoilt(Exception):
    """Work raised after it had noted something: nobody else may commit that."""


class LedgerBatches:
    """For one event loop. `executor` runs the transactions; `wake` is the ledgers'."""

    def __init__(self, database: Database, executor: Executor, wake: Wake | None) -> None:
        self._database = database
        self._executor = executor
        self._wake = wake
        self._waiting: dict[_Key, list[_Job[Any]]] = {}
        """A key that is here has a batch under way."""
        self._experiments: OrderedDict[str, str] = OrderedDict()
        """Trial -> experiment, of trials that were met."""
        self._memory = LedgerMemory()

    async def on_experiment(self, project: str, experiment_id: str, work: Work[_T]) -> _T:
        """The result of `work`, committed. Raises what it raises, and NotFound, Unavailable, IdempotencyConflict."""
        return await self._do(_Key(project, experiment_id), work, None)

    async def on_trial(self, project: str, trial_id: str, work: Work[_T]) -> _T:
        """As `on_experiment`, of the experiment that the trial belongs to; the trial has been read."""
        experiment_id = self._experiments.get(trial_id)
        return await self._do(_Key(project, experiment_id, None if experiment_id else trial_id), work, trial_id)

    def look(self, project: str, trial_id: str) -> tuple[StoredExperiment, StoredTrial] | None:
        """An open trial and its experiment as this process left them last, which need not be how they are now."""
        left = self._memory.look(project, self._experiments.get(trial_id, ""))
        trial = left.trials.get(trial_id) if left is not None else None
        return (left.experiment, trial) if left is not None and trial is not None else None

    async def _do(self, key: _Key, work: Work[_T], trial_id: str | None) -> _T:
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        job = _Job(work, trial_id, done)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(job)
        else:
            self._waiting[key] = []
            self._start(key, [job])
        return await done

    def _start(self, key: _Key, jobs: Sequence[_Job[Any]]) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            met: dict[str, str] = {}
            outcomes = self._outcomes(key, jobs, met)
            loop.call_soon_threadsafe(self._finish, key, jobs, outcomes, met)

        self._executor.submit(run)

    def _finish(self, key: _Key, jobs: Sequence[_Job[Any]], outcomes: Sequence[_Outcome], met: dict[str, str]) -> None:
        self._experiments.update(met)
        while len(self._experiments) > _REMEMBERED_TRIALS:
            self._experiments.popitem(last=False)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.done.done():
                continue  # Whoever waited has gone.
            if outcome.error is not None:
                job.done.set_exception(outcome.error)
            else:
                job.done.set_result(outcome.result)
        waiting = self._waiting[key]
        if waiting:
            self._waiting[key] = waiting[_MOST_TOGETHER:]
            self._start(key, waiting[:_MOST_TOGETHER])
        else:
            del self._waiting[key]

    def _outcomes(self, key: _Key, jobs: Sequence[_Job[Any]], met: dict[str, str]) -> list[_Outcome]:
        left = None
        if key.experiment_id is not None:
            left = self._memory.take(key.project, key.experiment_id)
            try:
                if left is not None and (outcomes := self._from_memory(key.experiment_id, left, jobs, met)) is not None:
                    return outcomes
                if len(jobs) > 1:
                    return self._together(key, key.experiment_id, jobs, met, left)
            except Unavailable as error:
                return [_Outcome(error=error)] * len(jobs)
            except Exception:  # noqa: BLE001 - whose fault it was shows when each is done alone
                met.clear()
        return [self._alone(key, job, met, left) for job in jobs]

    def _from_memory(
        self, experiment_id: str, left: Left, jobs: Sequence[_Job[Any]], met: dict[str, str]
    ) -> list[_Outcome] | None:
        """Without a lock; None where that cannot be, and nothing was done. A refusal is said by who has looked."""
        try:
            with self._database.at_once() as tx:
                ledger = LedgerFromMemory(tx, left, self._wake)
                outcomes = [_Outcome(job.work(ledger)) for job in jobs]
                now_left = ledger.write()
        except Unavailable:
            raise
        except (NotFromMemory, ForetuneError):
            return None
        if now_left is None:
            self._memory.note_shared(left.experiment.project_id, experiment_id)
            return None
        self._memory.put(now_left)
        met.update(dict.fromkeys(ledger.known, experiment_id))
        return outcomes

    def _together(
        self, key: _Key, experiment_id: str, jobs: Sequence[_Job[Any]], met: dict[str, str], left: Left | None
    ) -> list[_Outcome]:
        trials = [job.trial_id for job in jobs if job.trial_id is not None]
        with (
            self._database.transaction() as tx,
            Ledger.of_experiment(tx, experiment_id, project=key.project, wake=self._wake, reads=trials) as ledger,
        ):
            outcomes = [_attempt(job, ledger) for job in jobs]
            met.update(dict.fromkeys(ledger.known, experiment_id))
        self._memory.put_ledger(ledger, left)
        return outcomes

    def _alone(self, key: _Key, job: _Job[Any], met: dict[str, str], left: Left | None) -> _Outcome:
        try:
            with self._database.transaction() as tx, self._ledger_of(tx, key, job) as ledger:
                result = job.work(ledger)
                met.update(dict.fromkeys(ledger.known, ledger.experiment.id))
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            return _Outcome(error=error)
        self._memory.put_ledger(ledger, left)
        return _Outcome(result)

    def _ledger_of(self, tx: Transaction, key: _Key, job: _Job[Any]) -> Ledger:
        if job.trial_id is not None:
            return Ledger.of_trial(tx, job.trial_id, project=key.project, wake=self._wake)
        assert key.experiment_id is not None
        return Ledger.of_experiment(tx, key.experiment_id, project=key.project, wake=self._wake)


def _attempt(job: _Job[Any], ledger: Ledger) -> _Outcome:
    """The work of one job among others: what it raises is its own affair, unless it left something behind."""
    before = ledger.notes
    try:
        return _Outcome(job.work(ledger))
    except ForetuneError as error:
        if ledger.notes != before:
            raise _Spoilt from error
        return _Outcome(error=error)
