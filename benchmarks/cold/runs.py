"""One optimisation run, and the file that remembers it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cold.methods import Method
from benchmarks.problems import BenchmarkProblem


@dataclass(frozen=True)
class Run:
    """Regrets and CPU seconds, one for each evaluation in turn."""

    problem: str
    split: str
    method: str
    version: str
    seed: int
    regrets: tuple[float, ...]
    cpu_s: tuple[float, ...]


def run(problem: BenchmarkProblem, method: Method, seed: int, evaluations: int) -> Run:
    """Asks, evaluates and tells `evaluations` times."""
    proposer = method.start(problem.space, seed, evaluations)
    regrets, cpu_s = [], []
    for _ in range(evaluations):
        begun = time.process_time()
        configuration = proposer.ask()
        asked = time.process_time() - begun
        value = problem.landscape.objective(configuration)
        begun = time.process_time()
        proposer.tell(configuration, value)
        cpu_s.append(asked + time.process_time() - begun)
        regrets.append(problem.regret(value))
    return Run(problem.name, problem.split, method.name, method.version, seed, tuple(regrets), tuple(cpu_s))


class RunCache:
    """A JSON-lines file of runs; a line that a crash cut short is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[tuple[str, str, str, int], Run] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    fields = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self._remember(Run(**{**fields, "regrets": tuple(fields["regrets"]), "cpu_s": tuple(fields["cpu_s"])}))

    def find(self, problem: BenchmarkProblem, method: Method, seed: int, evaluations: int) -> Run | None:
        """The run, if it was made with this version and for at least as long; cut to `evaluations`."""
        found = self._runs.get((problem.name, method.name, method.version, seed))
        if found is None or len(found.regrets) < evaluations:
            return None
        return Run(**{**asdict(found), "regrets": found.regrets[:evaluations], "cpu_s": found.cpu_s[:evaluations]})

    def add(self, made: Run) -> None:
        self._remember(made)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(made)) + "\n")

    def _remember(self, made: Run) -> None:
        self._runs[made.problem, made.method, made.version, made.seed] = made
