"""Foretune's service against Optuna on the same Postgres, in one run, by turns.

    python -m benchmarks.service                 # everything: about an hour on two cores
    python -m benchmarks.service --quick         # the settings that have a bar, once
    python -m benchmarks.service --only throughput --histories 100 --clients 4

Ours is the embedded stack over HTTP, driven by `foretune.Client`; Optuna is its RDB storage with the default sampler
and pruner, in a database of the same server. Each client is a process; both sides tune the same five parameters,
begin with the same history, and are asked by clients that have joined already. Needs the extra `bench`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import optuna

from benchmarks import service_latency as latency
from benchmarks.service_clients import Clients
from benchmarks.service_machine import TransactionCount, settle
from benchmarks.service_ours import Histories
from benchmarks.service_peer import StudyTemplates, plain_url
from benchmarks.service_report import Results
from benchmarks.service_task import EPOCHS
from benchmarks.service_throughput import Contest, Plan, Side, grid
from foretune.client import Client
from service.db.session import Database
from service.embedded.stack import RunningStack, StackOptions, start

PARTS = ("throughput", "commits", "join", "overhead", "stream", "ready")
_LONG_HISTORY = 5000
_COUNTED_TRIALS = 1000
"""Commits are counted over as many at least: an idle service makes some as well, which are only estimated."""


def main() -> None:
    """Runs what was asked for, prints the comparison, writes the JSON file."""
    arguments = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = Results()
    if "ready" in arguments.only:
        times = list(latency.ready_times(arguments.repeats))
        results.add("ready, empty folder", [empty_s for empty_s, _ in times])
        results.add("ready, used folder", [used_s for _, used_s in times])
    with tempfile.TemporaryDirectory(prefix="ft-") as folder, ExitStack() as held:
        clients = held.enter_context(Clients(max(4, *arguments.clients)))
        stack = held.enter_context(start(StackOptions(data_dir=Path(folder) / "data", port=0, train_workers=1)))
        client = held.enter_context(Client(stack.url, stack.key_file.read_text().strip()))
        database = Database(stack.plan.database_url, pool_size=1)
        held.callback(database.close)
        settle(_pids(stack))
        bench = _Bench(arguments, stack, client, Histories(client, database), clients, results)
        for part in arguments.only:
            bench.part(part)
    results.print()
    arguments.json.write_text(json.dumps({**_machine(), **results.as_json()}, indent=1) + "\n")
    print(f"\nall of it: {arguments.json}")


class _Bench:
    """The parts that need a running stack."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        stack: RunningStack,
        client: Client,
        histories: Histories,
        clients: Clients,
        results: Results,
    ) -> None:
        self._arguments = arguments
        self._stack = stack
        self._client = client
        self._histories = histories
        self._results = results
        self._templates = StudyTemplates(stack.plan.database_url)
        self._contest = Contest(histories, self._templates, clients, lambda: _pids(stack))

    def part(self, name: str) -> None:
        """Runs one of PARTS."""
        match name:
            case "throughput":
                self._throughput()
            case "commits":
                self._commits()
            case "join":
                self._join()
            case "overhead":
                self._overhead()
            case "stream":
                self._stream()

    def _throughput(self) -> None:
        arguments = self._arguments
        settings = grid(arguments.histories, arguments.clients)
        for outcome in self._contest.run(Plan(settings, arguments.repeats, arguments.trials, arguments.longest)):
            self._results.outcomes.append(outcome)
            print(
                f"{outcome.repeat + 1}/{arguments.repeats} {outcome.setting!s:42s}{outcome.side:10s}"
                f"{outcome.trials_per_s:8.1f} trials/s  ask p95 {1000 * outcome.ask_p95_s:8.1f} ms"
                f"  CPU {sum(outcome.cpu_ms.values()):7.2f} ms",
                flush=True,
            )

    def _commits(self) -> None:
        def count(side: Side, reports: int) -> float:
            trials = max(_COUNTED_TRIALS, self._arguments.trials)
            return self._contest.transactions_per_trial(side, reports, trials, self._counter)

        for name, reports in (("commits a trial", 0), (f"commits a trial with {EPOCHS} measurements", EPOCHS)):
            self._results.add(name, [count("foretune", reports)], [count("optuna", reports)])

    def _join(self) -> None:
        desk, joined, theirs = [], [], []
        for _ in range(self._arguments.repeats):
            service = self._histories.experiment(_LONG_HISTORY, 0)
            desk.append(latency.join_of_desk(self._stack.plan.database_url, service))
            session = service.connect()
            session.one_trial(0)
            session.close()
            joined.append(latency.join_of_client(service))
            with self._templates.study(_LONG_HISTORY, 0) as study:
                theirs.append(latency.join_of_optuna(study))
        self._results.add("first proposal of a fresh desk, 5,000 trials", desk, theirs)
        self._results.add("a client joins, 5,000 trials", joined, theirs)

    def _overhead(self) -> None:
        trials, repeats = self._arguments.trials, range(self._arguments.repeats)
        external = [latency.external_overhead(self._histories, min(trials, 100)) for _ in repeats]
        self._results.add("overhead of a no-op trial, external", external)
        self._results.add(
            "overhead of a no-op trial, managed", [latency.managed_overhead(self._client, trials) for _ in repeats]
        )
        self._results.add(
            "submit to first measurement", [latency.submit_to_first_measurement(self._client) for _ in repeats]
        )

    def _stream(self) -> None:
        runs = [
            latency.measurement_to_reader(self._histories, self._client, 200) for _ in range(self._arguments.repeats)
        ]
        for percent in (50, 99):
            self._results.add(f"measurement to SSE p{percent}", [float(np.percentile(run, percent)) for run in runs])

    def _counter(self, database: str) -> TransactionCount:
        # Counted from the maintenance database, so that counting is not counted.
        address = plain_url(self._stack.plan.database_url).replace("/foretune?", "/postgres?", 1)
        return TransactionCount(address, database)


def _pids(stack: RunningStack) -> dict[str, int]:
    pids = {name: stack.supervisor.pid(name) for name in stack.supervisor.names()}
    return {name: pid for name, pid in pids.items() if pid is not None}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the settings that have a bar, once, with fewer trials")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--histories", type=int, nargs="*", help="trials before the first (0 100 1000 5000)")
    parser.add_argument("--clients", type=int, nargs="*", help="client processes (1 4 8)")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--trials", type=int, help="trials a run, shared by its clients")
    parser.add_argument("--longest", type=float, default=15.0, help="seconds after which a run begins no more trials")
    parser.add_argument("--json", type=Path, default=Path("service_benchmark.json"))
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.histories = arguments.histories or ([100, _LONG_HISTORY] if quick else [0, 100, 1000, _LONG_HISTORY])
    arguments.clients = arguments.clients or ([4] if quick else [1, 4, 8])
    arguments.repeats = arguments.repeats or (1 if quick else 3)
    arguments.trials = arguments.trials or (60 if quick else 160)
    return arguments


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "load_at_the_end": os.getloadavg()[0],
        "python": platform.python_version(),
        "optuna": optuna.__version__,
    }


if __name__ == "__main__":
    main()
