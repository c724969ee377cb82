"""Proposals without any history: ours against Optuna's TPE and GP and against random, sequentially, on known optima.

    python -m benchmarks.cold_proposals --seeds 10                  # everything, about two hours on one core
    python -m benchmarks.cold_proposals --split report --seeds 10   # the problems that no choice was made on
    python -m benchmarks.cold_proposals --problems branin --methods foretune optuna_gp

Every run of (problem, method, seed) is one line of a JSON-lines cache, so that an interrupted benchmark goes on where
it stopped. The cache key holds a hash of the proposer's source; an older result of ours is therefore never reused.
Regret is 0 at the optimum and 1 at a median random configuration; CPU is of the process, per proposal (ask and tell).
Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

from benchmarks.cold.methods import METHODS
from benchmarks.cold.report import print_report
from benchmarks.cold.runs import RunCache, run
from benchmarks.problems import PROBLEMS


def main() -> None:
    """Runs what the cache lacks, then prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--problems", nargs="*", default=[problem.name for problem in PROBLEMS])
    parser.add_argument("--split", choices=["development", "report", "all"], default="all")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--reference", choices=list(METHODS), default="optuna_gp")
    parser.add_argument("--cache", type=Path, default=Path("cold_proposals.jsonl"))
    parser.add_argument("--quiet", action="store_true", help="no line for each run")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    chosen = [
        problem
        for problem in PROBLEMS
        if problem.name in arguments.problems and arguments.split in ("all", problem.split)
    ]
    cache = RunCache(arguments.cache)
    runs = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for problem in chosen:
            for method in arguments.methods:
                found = cache.find(problem, METHODS[method], seed, arguments.evaluations)
                if found is None and not arguments.report_only:
                    found = run(problem, METHODS[method], seed, arguments.evaluations)
                    cache.add(found)
                    if not arguments.quiet:
                        print(
                            f"{problem.name:32s} {method:16s} seed {seed} regret {min(found.regrets):.4f}", flush=True
                        )
                if found is not None:
                    runs.append(found)
    print_report(runs, arguments.reference)


if __name__ == "__main__":
    main()
