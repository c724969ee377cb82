"""Foretune as its users run it: `foretune.Client` over HTTP, and the embedded stack behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.service_clients import Asked
from benchmarks.service_task import EPOCHS, PARAMETERS, REPORTED, final_loss, past_trials
from foretune.client import Client
from foretune.client.trial import Trial
from foretune.states import TrialState
from service.db.ledger import Ledger
from service.db.session import Database
from service.usecases import outcomes
from service.usecases.outcomes import Measured
from service.usecases.trials import Proposed, start_trial

_MAX_TRIALS = 1_000_000
_CHUNK = 250
"""Trials in one transaction while a history is loaded."""


@dataclass(frozen=True)
class ForetuneService:
    """An external experiment."""

    url: str
    key: str
    experiment_id: str

    def connect(self) -> ForetuneSession:
        """A client that joins."""
        return ForetuneSession(self)


class ForetuneSession:
    """One client's connection. It loops as `Experiment.optimize` does: an ending asks for the next trial."""

    def __init__(self, service: ForetuneService) -> None:
        self._client = Client(service.url, service.key)
        self._experiment = self._client.experiments.get(service.experiment_id)
        self._next: tuple[Trial, float] | None = None
        """What came with the last ending, and how long that took."""

    def one_trial(self, reports: int, *, another: bool = False) -> Asked:
        """See `benchmarks.service_clients.Session`."""
        trial, asked_s = self._next or _timed(self._experiment.ask)
        for epoch, value in enumerate(REPORTED[:reports], start=1):
            if trial.report(epoch, value).stop and epoch < EPOCHS:
                raise RuntimeError(f"{trial.id} was stopped; then the sides do not have the same work")
        loss = final_loss(trial.hyperparameters)
        self._next = _timed(partial(trial.complete_and_ask, loss)) if another else trial.complete(loss)
        return Asked(asked_s, trial.origin != "fallback")

    def close(self) -> None:
        """See `benchmarks.service_clients.Session`."""
        self._client.close()


def _timed(ask: Callable[[], Trial | None]) -> tuple[Trial, float]:
    started = time.perf_counter()
    trial = ask()
    if trial is None:
        raise RuntimeError("an ending brought no next trial")
    return trial, time.perf_counter() - started


class Histories:
    """External experiments that begin with some history."""

    def __init__(self, client: Client, database: Database) -> None:
        self._client = client
        self._database = database

    def experiment(self, history: int, reports: int, *, proposer: str = "auto") -> ForetuneService:
        """A new experiment with `history` finished trials of `reports` measurements each, as the usecases write it."""
        created = self._client.experiments.create(
            mode="external",
            space=PARAMETERS,  # type: ignore[arg-type]
            metric=("loss", "minimize"),
            budget={"max_trials": _MAX_TRIALS, "max_epochs": EPOCHS},
            proposer=proposer,
        )
        past = list(past_trials(history))
        for first in range(0, history, _CHUNK):
            with (
                self._database.transaction() as tx,
                Ledger.of_experiment(tx, created.id, project=None, wake=None) as ledger,
            ):
                outcomes.start_if_queued(ledger)
                for trial in past[first : first + _CHUNK]:
                    proposed = Proposed(trial.configuration, "random", None, {"index": 0, "seed": 0})
                    started = start_trial(ledger, proposed, lease=None, lease_until=ledger.now, worker=None)
                    told = [Measured(epoch, value, None, {}) for epoch, value in enumerate(REPORTED[:reports], 1)]
                    measured = outcomes.measure(ledger, started, told, set())
                    outcomes.finish_trial(ledger, measured, TrialState.COMPLETED, value=trial.loss)
        settings = self._client.settings
        return ForetuneService(settings.url, settings.api_key or "", created.id)
