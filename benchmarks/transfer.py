"""Proposals with histories: ours against the plain portfolio, ourselves cold, Optuna, BoTorch and random, on tables.

    python -m benchmarks.transfer --seeds 3                                   # what docs/LOG.md shows
    python -m benchmarks.transfer --seeds 10 --trials 100                     # everything; a day on one core
    python -m benchmarks.transfer --tables taskset --split report --subset
    python -m benchmarks.transfer --conditions shuffled inverted --methods foretune cold

Regret is 0 at the table's best row and 1 at its median one. Histories are the other tasks of the table, with no feature
that says which is like which; `--subset`: each with a different random part of the rows; `--few`: only the tasks of the
other split. Every run of (table, task, setting, method, seed) is one line of a JSON-lines cache, so that an interrupted
benchmark goes on where it stopped; the key holds a hash of the proposer's source. Settings were chosen on the split
`development`. CPU is of the process, per proposal. Needs the extra `bench` and FORETUNE_BENCH_DATA.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

from benchmarks.transfer_parts.methods import METHODS
from benchmarks.transfer_parts.report import print_report
from benchmarks.transfer_parts.runs import Run, RunCache, run
from benchmarks.transfer_parts.sources import CONDITIONS, Setting
from benchmarks.transfer_parts.tables import TABLES, Table


def main() -> None:
    """Runs what the cache lacks, then prints the comparison."""
    arguments = _parser().parse_args()
    cache = RunCache(arguments.cache)
    for name in arguments.tables:
        table = TABLES[name]()
        for condition in arguments.conditions:
            setting = Setting(condition, subset=arguments.subset, few=arguments.few)
            print(f"\n# {name}, {setting.name} histories, {arguments.split}")
            print_report(_runs(arguments, cache, table, setting))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--split", choices=["development", "report", "all"], default="all")
    parser.add_argument("--conditions", nargs="*", choices=CONDITIONS, default=["matching"])
    parser.add_argument("--subset", action="store_true", help="a different part of the rows for each history")
    parser.add_argument("--few", action="store_true", help="only the other split's tasks are histories")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--cache", type=Path, default=Path("transfer.jsonl"))
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    return parser


def _runs(arguments: argparse.Namespace, cache: RunCache, table: Table, setting: Setting) -> list[Run]:
    runs = []
    for seed in range(arguments.seeds):
        for task, split in enumerate(table.splits):
            if arguments.split not in ("all", split):
                continue
            for name in arguments.methods:
                method = METHODS[name]
                found = cache.find(table, task, setting, method, seed, arguments.trials)
                if found is None and not arguments.report_only:
                    found = run(table, task, setting, method, seed, arguments.trials)
                    cache.add(found)
                if found is not None:
                    runs.append(found)
    return runs


if __name__ == "__main__":
    main()
