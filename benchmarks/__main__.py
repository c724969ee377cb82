"""Every number that the README claims: `python -m benchmarks`, or `python -m benchmarks NAME [option ...]` for one."""

from __future__ import annotations

import runpy
import sys

BENCHMARKS = (
    "service",
    "cold_proposals",
    "tuning_wallclock",
    "recommendations",
    "transfer",
    "transfer_api",
    "starter",
    "stopping",
    "fitting",
    "engine",
    "task_space",
)


def main() -> None:
    """Runs the benchmark that the first argument names, with the other arguments; all of them without one."""
    name, *options = sys.argv[1:] or [""]
    if name and name not in BENCHMARKS:
        sys.exit(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    for chosen in [name] if name else BENCHMARKS:
        sys.argv = [f"benchmarks.{chosen}", *options]
        runpy.run_module(f"benchmarks.{chosen}", run_name="__main__")


if __name__ == "__main__":
    main()
