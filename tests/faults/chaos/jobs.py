"""Work to disturb: managed experiments of several kinds, one after another, and a client with an external one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foretune.client import Client, Experiment
from foretune.errors import ForetuneError
from foretune.events import Event
from foretune.json_types import JsonObject, JsonValue

PATIENCE_S = 180.0

_COMMON: JsonObject = {
    "mode": "managed",
    "dataset": "digits",
    "network": "mlp",
    "space": [
        {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 0.02, "log": True},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
    ],
    # Nothing of the mlp is left to its default: how long a job takes must not change with that.
    "fixed": {
        "width": 256,
        "depth": 3,
        "batch_size": 8,
        "activation": "relu",
        "optimizer": "adam",
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "lr_schedule": {
            "warmup_fraction": 0.05,
            "plateau_fraction": 0.0,
            "decay_exponent": 1.0,
            "final_fraction": 0.0,
        },
    },
    "stopping": "none",
    "proposer": "quasirandom",
    "priors": "none",
    "share_history": False,
}


def _job(**changes: JsonValue) -> JsonObject:
    return {**_COMMON, **changes}


EXACT: Mapping[str, JsonObject] = {
    "one at a time": _job(budget={"max_trials": 3, "max_epochs": 30}, parallelism=1, seed=3),
    "six at a time": _job(budget={"max_trials": 12, "max_epochs": 20}, parallelism=6, seed=4),
    "convolutions": _job(
        network="cnn",
        fixed={"batch_size": 64, "channels": 8, "depth": 1},
        budget={"max_trials": 3, "max_epochs": 4},
        parallelism=2,
        seed=5,
    ),
}
"""Whose proposals and endings depend on no clock: the same curves, bit for bit, whatever happens."""

MIXED: Mapping[str, JsonObject] = {
    "model-based, stopped early": _job(
        budget={"max_trials": 14, "max_epochs": 9}, proposer="auto", stopping="auto", parallelism=4, seed=6
    ),
    "total epochs": _job(
        budget={"max_trials": 50, "max_epochs": 10, "max_total_epochs": 57}, stopping="asha", parallelism=4, seed=7
    ),
    "target": _job(budget={"max_trials": 50, "max_epochs": 12, "target": 0.95}, proposer="auto", parallelism=3, seed=8),
    "seconds": _job(budget={"max_trials": 1000, "max_epochs": 12, "max_seconds": 6.0}, parallelism=3, seed=9),
}
"""Whose course depends on who comes first: their invariants hold."""

JOBS: Mapping[str, JsonObject] = {**EXACT, **MIXED}

_EXTERNAL: JsonObject = {
    "mode": "external",
    "space": [{"name": "x", "type": "float", "low": 0.0, "high": 1.0}],
    "metric": {"name": "score", "goal": "maximize"},
    "budget": {"max_trials": 100_000, "max_epochs": 2},
    "stopping": "none",
    "share_history": False,
}


@dataclass
class Job:
    """An experiment, and everything that a reader of its stream was told."""

    kind: str
    experiment: Experiment
    told: list[Event] = field(default_factory=list)
    interruptions: int = 0
    error: BaseException | None = None

    def listen(self, client: Client) -> threading.Thread:
        def note(_: ForetuneError) -> None:
            self.interruptions += 1

        def run() -> None:
            try:
                stream = client.stream(self.experiment.id, give_up_after_s=PATIENCE_S, on_interruption=note)
                for event in stream:
                    self.told.append(event)
            except BaseException as error:  # noqa: BLE001 - looked at by the proof
                self.error = error

        thread = threading.Thread(target=run, name=f"stream of {self.kind}", daemon=True)
        thread.start()
        return thread


class Jobs:
    """Keeps some experiments open at a time until it is told to begin no more."""

    def __init__(self, client: Client, open_at_a_time: int, kinds: Sequence[str]) -> None:
        self.done: list[Job] = []
        self._running: list[Job] = []
        self.error: BaseException | None = None
        self._client = client
        self._open, self._kinds = open_at_a_time, kinds
        self._last_round = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="jobs", daemon=True)
        self._thread.start()

    def finish(self) -> list[Job]:
        """Begins no more, and waits for the end of all. Raises what went wrong."""
        self._last_round.set()
        self._thread.join(PATIENCE_S)
        if self.error is not None:
            raise self.error
        if self._thread.is_alive():
            still = [f"{job.kind}: {job.experiment.refresh().info.progress}" for job in self._running]
            raise AssertionError(f"not every experiment has ended after {PATIENCE_S:g} s: {'; '.join(still)}")
        return self.done

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - raised by `finish`
            self.error = error

    def _run(self) -> None:
        running: list[tuple[Job, threading.Thread]] = []
        number = 0
        while running or not self._last_round.is_set():
            while len(running) < self._open and not self._last_round.is_set():
                name = self._kinds[number % len(self._kinds)]
                number += 1
                job = Job(name, self._client.experiments.create(JOBS[name]))
                running.append((job, job.listen(self._client)))
                self._running = [one for one, _ in running]
            for job, thread in list(running):
                if not thread.is_alive():
                    running.remove((job, thread))
                    self._running.remove(job)
                    self.done.append(job)
            time.sleep(0.05)


class Teller:
    """A client that trains for itself, and remembers what it was thanked for."""

    def __init__(self, client: Client) -> None:
        self.experiment = client.experiments.create(_EXTERNAL)
        self.acknowledged: dict[str, float] = {}
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="teller", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)
        if self.error is not None:
            raise self.error
        assert not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            while not self._over.is_set():
                (trial,) = self.experiment.ask_many(1, wait_s=0.1)
                number = float(len(self.acknowledged))
                trial.report(1, number)
                trial.report(2, number + 1)
                trial.complete(number + 1)
                self.acknowledged[trial.id] = number + 1
                time.sleep(0.2)
        except BaseException as error:  # noqa: BLE001 - raised by `finish`
            self.error = error
