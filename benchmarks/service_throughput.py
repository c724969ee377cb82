"""Clients that ask and tell as fast as they can: trials a second, time of an ask, processor time, transactions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.service_clients import ClientRun, Clients, Load, Service
from benchmarks.service_machine import TransactionCount, cpu_seconds, difference
from benchmarks.service_ours import Histories
from benchmarks.service_peer import StudyTemplates
from benchmarks.service_task import EPOCHS

Side = Literal["foretune", "optuna"]
SIDES: tuple[Side, Side] = ("foretune", "optuna")


@dataclass(frozen=True)
class Setting:
    """One cell of the grid. `reports` measurements a trial; `history` trials before the first."""

    reports: int
    history: int
    clients: int

    def __str__(self) -> str:
        what = f"ask+{self.reports}+tell" if self.reports else "ask+tell"
        return f"{what} history={self.history} clients={self.clients}"


@dataclass(frozen=True)
class Outcome:
    """One run of one side. Times are seconds; `cpu_ms` is milliseconds a trial by process group."""

    side: Side
    setting: Setting
    repeat: int
    trials: int
    trials_per_s: float
    ask_p50_s: float
    ask_p95_s: float
    by_model: float
    """Share of the asks that the model answered."""
    cpu_ms: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What to run."""

    settings: Sequence[Setting]
    repeats: int
    trials: int
    longest_s: float


class Contest:
    """Both sides on one Postgres. `pids`: the service's processes by name, Postgres among them."""

    def __init__(
        self, histories: Histories, templates: StudyTemplates, clients: Clients, pids: Callable[[], dict[str, int]]
    ) -> None:
        self._histories = histories
        self._templates = templates
        self._clients = clients
        self._pids = pids

    def run(self, plan: Plan) -> Iterator[Outcome]:
        """Every setting, `repeats` times, the sides in turn."""
        for repeat in range(plan.repeats):
            for setting in plan.settings:
                for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
                    yield self._run(side, setting, plan, repeat)

    def transactions_per_trial(
        self, side: Side, reports: int, trials: int, counter: Callable[[str], TransactionCount]
    ) -> float:
        """With four clients at 100 trials of history; what the idle service does by itself is taken off.

        `counter` makes the count of a database, by its name.
        """
        with self._service(side, history=100, reports=reports) as (service, database):
            count = counter(database)
            commits_0, time_0 = count.settled()
            commits_1, time_1 = count.settled()
            load = Load(clients=4, trials=trials, longest_s=60.0, reports=reports)
            self._clients.join(service, load)
            runs = self._clients.go(load)
            commits_2, time_2 = count.settled()
        idle_rate = (commits_1 - commits_0) / (time_1 - time_0)
        # The trial that each client does before the start is counted too.
        done = sum(len(run.asked) for run in runs) + load.clients
        return (commits_2 - commits_1 - idle_rate * (time_2 - time_1)) / done

    def _run(self, side: Side, setting: Setting, plan: Plan, repeat: int) -> Outcome:
        load = Load(setting.clients, plan.trials, plan.longest_s, setting.reports)
        with self._service(side, setting.history, setting.reports) as (service, _):
            self._clients.join(service, load)
            pids = self._pids() if side == "foretune" else {"postgres": self._pids()["postgres"]}
            before = cpu_seconds(pids)
            runs = self._clients.go(load)
            used = difference(cpu_seconds(pids), before)
        used["clients"] = sum(run.cpu_s for run in runs)
        return _outcome(side, setting, repeat, runs, used)

    @contextmanager
    def _service(self, side: Side, history: int, reports: int) -> Iterator[tuple[Service, str]]:
        """The experiment, and the name of the database that it lies in."""
        if side == "foretune":
            yield self._histories.experiment(history, reports), "foretune"
        else:
            with self._templates.study(history, reports) as study:
                yield study, study.database


def grid(histories: Sequence[int], clients: Sequence[int]) -> list[Setting]:
    """Without and with measurements."""
    return [Setting(reports, history, count) for reports in (0, EPOCHS) for history in histories for count in clients]


def _outcome(side: Side, setting: Setting, repeat: int, runs: Sequence[ClientRun], used: dict[str, float]) -> Outcome:
    asked = [one for run in runs for one in run.asked]
    seconds = [one.seconds for one in asked]
    elapsed_s = max(run.finished for run in runs) - min(run.started for run in runs)
    return Outcome(
        side=side,
        setting=setting,
        repeat=repeat,
        trials=len(asked),
        trials_per_s=len(asked) / elapsed_s,
        ask_p50_s=float(np.percentile(seconds, 50)),
        ask_p95_s=float(np.percentile(seconds, 95)),
        by_model=statistics.fmean(one.by_model for one in asked),
        cpu_ms={name: 1000 * value / len(asked) for name, value in used.items()},
    )
