"""What stopping early saves, and what it costs: policies replayed on real learning curves.

    python -m benchmarks.stopping                                   # the report split, random proposals
    python -m benchmarks.stopping --split development               # what `auto` was chosen on
    python -m benchmarks.stopping --proposer foretune --seeds 5     # the real proposer (FORETUNE_BENCH_DATA)

Each policy meets the same trials in the same order (random proposals), or proposes its own. An experiment has 64
trials, or the 32 that a starter job has, in eight slots. Regret: 0 is the best trial of the task, 1 the median one.

    epochs    spent, as a share of those without stopping
    loss      regret in excess of the same number of trials without stopping, mean and 95th percentile of runs
    gain      regret of no stopping when it had spent as many epochs, less ours
    stopped   share of runs in which a trial was stopped that would have been better than the best found

Development and report share no data set (starter), no data set (LCBench) and no kind of cell (TaskSet).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

import numpy as np

from benchmarks.stopping_parts.policies import POLICIES
from benchmarks.stopping_parts.replay import Proposer, Replay, replay
from benchmarks.stopping_parts.tasks import CurveTask, Split, tasks


def main() -> None:
    """Replays and prints a table a group of tasks."""
    arguments = _arguments()
    chosen = [task for task in tasks(arguments.split) if arguments.proposer == "random" or task.table is not None]
    for group in dict.fromkeys(task.group for task in chosen):
        members = [task for task in chosen if task.group == group]
        print(f"\n{group}: {len(members)} tasks, {arguments.seeds} seeds, {arguments.proposer} proposals")
        print(f"{'':30s} epochs   loss (95th)      gain     stopped")
        without = _replays(members, "none", arguments)
        for name in arguments.policies:
            _print(name, without if name == "none" else _replays(members, name, arguments), without)


def _replays(members: Sequence[CurveTask], policy: str, arguments: argparse.Namespace) -> list[Replay]:
    return [
        replay(task, POLICIES[policy], seed, arguments.trials, arguments.proposer)
        for task in members
        for seed in range(arguments.seeds)
    ]


def _print(name: str, replays: Sequence[Replay], without: Sequence[Replay]) -> None:
    pairs = list(zip(replays, without, strict=True))
    epochs = np.mean([ours.spent[-1] / full.spent[-1] for ours, full in pairs])
    loss = np.array([ours.found[-1] - full.found[-1] for ours, full in pairs])
    gain = np.mean([full.found_after(ours.spent[-1]) - ours.found[-1] for ours, full in pairs])
    stopped = np.mean([ours.best_stopped for ours, _ in pairs])
    print(
        f"{name:30s}  {epochs:.2f}   {loss.mean():+.4f} ({np.quantile(loss, 0.95):.3f})  {gain:+.4f}   {stopped:.2f}",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=__doc__.partition("\n")[0])
    parser.add_argument("--split", choices=get_args(Split), default="report")
    parser.add_argument("--proposer", choices=get_args(Proposer), default="random")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
