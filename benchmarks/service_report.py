"""The printed comparison: a row a setting, the single figures, and what was asked of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.service_task import EPOCHS
from benchmarks.service_throughput import SIDES, Outcome, Setting, Side
from foretune.json_types import JsonObject


@dataclass(frozen=True)
class Figure:
    """One single number, measured some times. Seconds, unless the name says otherwise."""

    name: str
    values: tuple[float, ...]
    optuna: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One demand. `value` None: not measured in this run."""

    name: str
    value: float | None
    limit: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """PASS or miss."""
        if self.value is None:
            return "not measured"
        return "PASS" if (self.value >= self.limit) is self.at_least or self.value == self.limit else "miss"

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.4g}"
        return f"{self.name:74s} {value:>8s}  {'>=' if self.at_least else '<='} {self.limit:<6g} {self.verdict}"


class Results:
    """All that a run of the benchmark measured."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.figures: dict[str, Figure] = {}

    def add(self, name: str, values: Sequence[float], optuna: Sequence[float] = ()) -> None:
        """Keeps a figure."""
        self.figures[name] = Figure(name, tuple(values), tuple(optuna))

    def median(self, side: Side, setting: Setting, column: str) -> float | None:
        """Over the repeats; None when the setting was not run."""
        values = self._values(side, setting, column)
        return statistics.median(values) if values else None

    def ratio(self, setting: Setting) -> float | None:
        """Our trials a second over Optuna's, the median of the ratios within each repeat."""
        ratios = self._ratios(setting)
        return statistics.median(ratios) if ratios else None

    def print(self) -> None:
        """Tables and verdicts."""
        self._print_throughput()
        self._print_cpu()
        print("\nSingle figures (median [least … most])")
        for figure in self.figures.values():
            print(
                f"  {figure.name:58s} {_spread(figure.values)}"
                + (f"   Optuna {_spread(figure.optuna)}" if figure.optuna else "")
            )
        print("\nBars")
        for bar in self.bars():
            print(f"  {bar}")

    def bars(self) -> list[Bar]:
        """What DESIGN.md and the project's issue ask for."""
        plain, measured = Setting(0, 100, 4), Setting(EPOCHS, 100, 4)
        long = Setting(0, 5000, 4)
        ours, theirs = (self.median(side, long, "ask_p95_s") for side in SIDES)
        at_100 = self.median("foretune", plain, "ask_p95_s")
        return [
            Bar("ask+tell, 4 clients, 100 trials: times Optuna's trials/s", self.ratio(plain), 10, at_least=True),
            Bar("ask+5 measurements+tell, the same", self.ratio(measured), 5, at_least=True),
            Bar("ask+tell, 4 clients, 5,000 trials: times Optuna's trials/s", self.ratio(long), 20, at_least=True),
            Bar("ask p95 at 5,000 trials, 4 clients: share of Optuna's", _over(ours, theirs), 0.1, at_least=False),
            Bar("ask p95 at 5,000 trials, 4 clients: times our own at 100", _over(ours, at_100), 1.5, at_least=False),
            self._figure_bar("commits a trial", 3),
            self._figure_bar("first proposal of a fresh desk, 5,000 trials", 0.1),
            self._figure_bar("a client joins, 5,000 trials", 0.1),
            self._figure_bar("overhead of a no-op trial, external", 0.03),
            self._figure_bar("overhead of a no-op trial, managed", 0.03),
            self._figure_bar("measurement to SSE p99", 0.1),
            self._figure_bar("submit to first measurement", 1.0),
            self._figure_bar("ready, empty folder", 6.0),
            self._figure_bar("ready, used folder", 3.0),
        ]

    def as_json(self) -> JsonObject:
        """Everything, for a file."""
        return {
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "figures": [asdict(figure) for figure in self.figures.values()],
            "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in self.bars()],
        }

    def _figure_bar(self, name: str, limit: float) -> Bar:
        figure = self.figures.get(name)
        return Bar(name, statistics.median(figure.values) if figure else None, limit, at_least=False)

    def _values(self, side: Side, setting: Setting, column: str) -> list[float]:
        return [getattr(one, column) for one in self.outcomes if one.side == side and one.setting == setting]

    def _ratios(self, setting: Setting) -> list[float]:
        rates: Mapping[Side, list[float]] = {side: self._values(side, setting, "trials_per_s") for side in SIDES}
        return [ours / theirs for ours, theirs in zip(rates["foretune"], rates["optuna"], strict=False)]

    def _print_throughput(self) -> None:
        print("Trials a second; time of an ask in ms (medians over the repeats; ratio with its spread)")
        print(
            f"  {'':42s}{'trials/s':>17s}{'ratio':>24s}{'ask p50':>17s}{'ask p95':>17s}{'by model':>10s}\n"
            f"  {'':42s}{'ours':>8s}{'Optuna':>9s}{'':24s}{'ours':>8s}{'Optuna':>9s}{'ours':>8s}{'Optuna':>9s}"
        )
        for setting in dict.fromkeys(outcome.setting for outcome in self.outcomes):
            cells = [self.median(side, setting, "trials_per_s") for side in SIDES]
            p50 = [self.median(side, setting, "ask_p50_s") for side in SIDES]
            p95 = [self.median(side, setting, "ask_p95_s") for side in SIDES]
            by_model = self.median("foretune", setting, "by_model") or 0.0
            print(
                f"  {setting!s:42s}{_cell(cells[0], 8)}{_cell(cells[1], 9)}{_spread(self._ratios(setting)):>24s}"
                f"{_cell(p50[0], 8, 1000)}{_cell(p50[1], 9, 1000)}{_cell(p95[0], 8, 1000)}{_cell(p95[1], 9, 1000)}"
                f"{by_model:10.0%}"
            )

    def _print_cpu(self) -> None:
        print("\nProcessor time, ms a trial (medians over the repeats)")
        for setting in dict.fromkeys(outcome.setting for outcome in self.outcomes):
            for side in SIDES:
                used = [one.cpu_ms for one in self.outcomes if one.side == side and one.setting == setting]
                if used:
                    each = {name: statistics.median(one[name] for one in used) for name in used[0]}
                    parts = "  ".join(f"{name} {value:.2f}" for name, value in each.items())
                    print(f"  {setting!s:42s}{side:10s}{sum(each.values()):8.2f} = {parts}")


def _over(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def _cell(value: float | None, width: int, factor: float = 1.0) -> str:
    return f"{'-':>{width}s}" if value is None else f"{value * factor:{width}.1f}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    text = f"{statistics.median(values):.4g}"
    return text if len(values) == 1 else f"{text} [{min(values):.4g} … {max(values):.4g}]"
