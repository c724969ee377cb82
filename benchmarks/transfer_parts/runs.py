"""One optimisation of one task, and the file that remembers it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.transfer_parts.methods import Method
from benchmarks.transfer_parts.sources import Setting, histories
from benchmarks.transfer_parts.tables import Table


@dataclass(frozen=True)
class Run:
    """Regrets, CPU seconds (the first with what the histories cost) and rows of the table, one a trial in turn."""

    table: str
    task: int
    setting: str
    method: str
    version: str
    seed: int
    regrets: tuple[float, ...]
    cpu_s: tuple[float, ...]
    places: tuple[int, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies a run."""
        return (self.table, self.task, self.setting, self.method, self.version, self.seed)


def run(table: Table, task: int, setting: Setting, method: Method, seed: int, trials: int) -> Run:
    """Asks, looks up and tells `trials` times."""
    regrets = table.regrets(task)
    sources = histories(table, task, setting, seed) if method.learns else []
    begun = time.process_time()
    asker = method.start(table, sources, seed, trials)
    places, cpu_s = [], []
    for _ in range(trials):
        configuration = asker.ask()
        asked = time.process_time() - begun
        place = table.place(configuration)
        begun = time.process_time()
        asker.tell(configuration, table.value(task, place))
        cpu_s.append(asked + time.process_time() - begun)
        places.append(place)
        begun = time.process_time()
    reached = tuple(round(float(regrets[place]), 6) for place in places)
    name = setting.name if method.learns else "none"
    spent = tuple(round(one, 5) for one in cpu_s)
    return Run(table.name, task, name, method.name, method.version, seed, reached, spent, tuple(places))


class RunCache:
    """A JSON-lines file of runs; a line that a crash cut short is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[tuple[object, ...], Run] = {}
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                fields = json.loads(line)
            except json.JSONDecodeError:
                continue
            made = Run(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
            self._remember(made)

    def find(self, table: Table, task: int, setting: Setting, method: Method, seed: int, trials: int) -> Run | None:
        """The run, if it was made with this version and for at least as long; cut to `trials`."""
        name = setting.name if method.learns else "none"
        found = self._runs.get((table.name, task, name, method.name, method.version, seed))
        if found is None or len(found.regrets) < trials:
            return None
        cut = {name: getattr(found, name)[:trials] for name in ("regrets", "cpu_s", "places")}
        return Run(**{**asdict(found), **cut})

    def add(self, made: Run) -> None:
        self._remember(made)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(made)) + "\n")

    def _remember(self, made: Run) -> None:
        known = self._runs.get(made.key)
        if known is None or len(known.regrets) <= len(made.regrets):
            self._runs[made.key] = made
