"""Chaos: processes killed, hung and cut off, disks filled, experiments paused, by a plan of one seed, while jobs run.

    python -m tests.faults.chaos                          # 200 faults, about a quarter of an hour
    python -m tests.faults.chaos --faults 14 --seed 5     # what the tests run

It proves that every experiment ends; that each trial measured exactly the epochs 1..n; that results equal those of an
undisturbed run, bit for bit, where they depend on no clock; that no log has a gap and no stream missed an event; that
budgets and parallelism held; and that no process, lease or checkpoint is left behind. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.chaos import proof
from tests.faults.chaos.arena import LEASE_S, Arena, arena, left_running, private_mounts
from tests.faults.chaos.faults import Heal, plan
from tests.faults.chaos.jobs import EXACT, JOBS, Job, Jobs, Teller

_TIDY_WITHIN_S = 60.0


def main() -> None:
    arguments = _arguments()
    small_disk = private_mounts()
    folder = Path(tempfile.mkdtemp(prefix="ft-chaos-", dir="/tmp"))
    run = _Run(arguments)
    try:
        with arena(folder, small_disk=small_disk) as made:
            run.go(made)
            run_folder = made.stack.plan.layout.run
        time.sleep(0.5)
        run.expect("processes", lambda: _assert_none(left_running(run_folder)))
    finally:
        if run.problems and arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    run.print_tally()
    sys.exit(1 if run.problems else 0)


class _Run:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._seed, self._count, self._pause_s = arguments.seed, arguments.faults, arguments.pause
        self._jobs, self._kinds = arguments.jobs, arguments.only
        self._tally: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._took_s = 0.0
        self.problems: list[str] = []

    def go(self, stage: Arena) -> None:
        stage.wait_until_ready()
        started = time.monotonic()
        expected = {}
        references = {
            name: stage.client.experiments.create(request) for name, request in EXACT.items() if name in self._kinds
        }
        for name, reference in references.items():
            undisturbed = reference.wait(timeout_s=120)
            expected[name] = proof.results(stage.client, undisturbed)
            print(f"undisturbed: {name}, {undisturbed.info.progress.seconds:.1f} s", flush=True)
        print(f"ready after {stage.stack.ready_after_s:.1f} s; a small disk: {stage.has_small_disk}", flush=True)
        began = time.monotonic()
        print(f"the references took {began - started:.1f} s", flush=True)
        jobs, teller = Jobs(stage.client, self._jobs, self._kinds), Teller(stage.client)
        self._disturb(stage)
        stage.wait_until_ready()
        self._took_s = time.monotonic() - began
        self.expect("a client's own experiment", teller.finish)
        done: list[Job] = []
        self.expect("every experiment ends", lambda: done.extend(jobs.finish()))
        for job in done or jobs.done:
            self.expect(f"{job.kind} {job.experiment.id}", lambda job=job: self._look_at(stage, job, expected))  # type: ignore[misc]
        self.expect("acknowledged values", lambda: _acknowledged(teller))
        teller.experiment.cancel()
        self.expect("leases", lambda: _no_lease(stage))
        self.expect("checkpoints", lambda: _no_orphan(stage))

    def _disturb(self, stage: Arena) -> None:
        """Strikes by the plan; faults that last overlap."""
        healing: list[tuple[float, int, Heal]] = []
        generator = random.Random(self._seed)
        number = 0
        planned = plan(self._seed, self._count, self._pause_s, small_disk=stage.has_small_disk)
        for number, fault in enumerate(planned, 1):
            self._heal_until(healing, time.monotonic() + fault.pause_s)
            heal = None
            # What is to be killed may just be starting again.
            patience = time.monotonic() + 10.0
            while heal is None and time.monotonic() < patience:
                heal = fault.kind.strike(stage, fault.place, generator)
                if heal is None:
                    self._heal_until(healing, time.monotonic() + 0.2)
            if heal is None:
                self._missed[fault.kind.name] += 1
                continue
            self._tally[fault.kind.name] += 1
            heapq.heappush(healing, (time.monotonic() + fault.lasts_s, number, heal))
            print(f"{number:4d} {fault.kind.name}: {fault.place} ({fault.lasts_s:.1f} s)", flush=True)
        while healing:
            self._heal_until(healing, healing[0][0])

    @staticmethod
    def _heal_until(healing: list[tuple[float, int, Heal]], until: float) -> None:
        while healing and healing[0][0] <= until:
            at, _, heal = heapq.heappop(healing)
            time.sleep(max(0.0, at - time.monotonic()))
            heal()
        time.sleep(max(0.0, until - time.monotonic()))

    def expect(self, what: str, check: object) -> None:
        try:
            check()  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - told at the end, with all the others
            self.problems.append(f"{what}: {type(error).__name__}: {error}")
            print(f"PROBLEM {self.problems[-1]}", flush=True)

    def _look_at(self, stage: Arena, job: Job, expected: dict[str, list[proof.Result]]) -> None:
        assert job.error is None, f"its stream: {job.error!r}"
        experiment = job.experiment.refresh()
        trials = list(experiment.list_trials())
        measured = {trial.id: list(stage.client.trials.measurements(trial.id)) for trial in trials}
        events = list(experiment.stream())
        proof.whole(events)
        assert job.told == events, "a reader was told something else than the log says"
        proof.ended(experiment, trials)
        proof.epochs_once(trials, measured, events)
        proof.within_parallelism(experiment, events)
        proof.within_budget(experiment, trials, measured)
        if job.kind in expected:
            assert proof.results(stage.client, experiment) == expected[job.kind], "other results than undisturbed"
        self._seen["experiments"] += 1
        self._seen["of them equal bit for bit to an undisturbed run"] += job.kind in expected
        self._seen["trials"] += len(trials)
        self._seen["epochs"] += sum(trial.epochs for trial in trials)
        self._seen["events"] += len(events)
        self._seen["interruptions of streams"] += job.interruptions
        self._seen.update(proof.attempts(events))

    def print_tally(self) -> None:
        print(f"\nseed {self._seed}: {sum(self._tally.values())} faults in {self._took_s:.0f} s")
        for name, count in sorted(self._tally.items()):
            print(f"  {count:4d} {name}")
        for name, count in sorted(self._missed.items()):
            print(f"  {count:4d} planned, but there was nothing to strike: {name}")
        print("; ".join(f"{count} {name}" for name, count in self._seen.items()))
        print("\n".join(["", f"{len(self.problems)} problems:", *self.problems]) if self.problems else "nothing lost")


def _acknowledged(teller: Teller) -> None:
    values = {trial.id: trial.value for trial in teller.experiment.list_trials()}
    lost = {name: value for name, value in teller.acknowledged.items() if values.get(name) != value}
    assert teller.acknowledged, "nothing was told"
    assert not lost, f"told and lost: {lost}"


def _no_lease(stage: Arena) -> None:
    held = stage.rows("SELECT id, state, lease_until FROM trials WHERE state = 'RUNNING' OR lease_until IS NOT NULL")
    assert not held, held
    waiting = stage.rows(
        "SELECT pid, state, query FROM pg_stat_activity "
        "WHERE datname = 'foretune' AND xact_start < now() - interval '30 seconds'"
    )
    assert not waiting, waiting


def _no_orphan(stage: Arena) -> None:
    """Upkeep deletes what nothing refers to soon after the end, when no late writer can come any more."""
    root = stage.stack.plan.layout.artifacts
    deadline = time.monotonic() + _TIDY_WITHIN_S + LEASE_S
    while True:
        rows = stage.rows("SELECT checkpoint->>'artifact', checkpoint->'before'->>'artifact' FROM trials")
        known = {key for row in rows for key in row if key is not None}
        left = {str(path.relative_to(root)) for path in stage.checkpoints()} - known
        if not left:
            return
        assert time.monotonic() < deadline, f"{len(left)} checkpoints that nothing refers to: {sorted(left)[:5]}"
        time.sleep(0.5)


def _assert_none(found: list[str]) -> None:
    assert not found, found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=3, help="experiments open at a time")
    parser.add_argument(
        "--keep", action="store_true", help="keep the data folder, with its logs, if something is wrong"
    )
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS), help="kinds of jobs")
    parser.add_argument("--pause", type=float, default=2.5, help="seconds between two strikes, at most")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
