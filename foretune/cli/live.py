"""The live picture of an experiment: a state that events are folded into, and a pure rendering of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from foretune.cli import format as fmt
from foretune.events import Event, EventType
from foretune.json_types import JsonObject, JsonValue
from foretune.states import ExperimentState, TrialState
from foretune.wire.experiments import Experiment, Progress

_SHOWN_TRIALS = 8
_SHOWN_EVENTS = 5
_ESSENTIAL_LINES = 10
"""Frame, bar, counts, the best trial with its two curves, and the line below the frame."""


@dataclass
class TrialLine:
    """What the events said of one trial."""

    id: str
    number: int
    hyperparameters: Mapping[str, JsonValue] = field(default_factory=dict)
    origin: str = ""
    state: TrialState = TrialState.QUEUED
    curve: dict[int, float | None] = field(default_factory=dict)
    """Value by epoch."""
    reason: str | None = None

    @property
    def epoch(self) -> int:
        return max(self.curve, default=0)

    @property
    def value(self) -> float | None:
        return self.curve.get(self.epoch)

    @property
    def values(self) -> list[float | None]:
        return [self.curve[epoch] for epoch in sorted(self.curve)]


@dataclass
class Picture:
    """Everything that is shown. `apply` folds one event in; events at or before `last_event` change nothing."""

    experiment: Experiment
    trials: dict[str, TrialLine] = field(default_factory=dict)
    state: ExperimentState | None = None
    reason: str | None = None
    best: tuple[str, float, int | None] | None = None
    """Trial id, value, epoch."""
    best_course: list[float] = field(default_factory=list)
    """The best value so far after each measurement, since there was one."""
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_EVENTS))
    last_event: int = 0
    progress: Progress | None = None
    """As the service last said; estimated from the events before it has."""
    notice: str | None = None
    """What disturbs at the moment, for example a lost connection."""

    def apply(self, event: Event) -> str | None:
        """Folds an event in; gives the line to print where nothing can be redrawn, None for minor events."""
        if event.sequence <= self.last_event:
            return None
        self.last_event = event.sequence
        self.notice = None
        line = self._fold(event.type, event.data)
        if line is not None:
            self.recent.append(line)
        return line

    @property
    def running(self) -> list[TrialLine]:
        """Trials that train now, by number."""
        return [trial for trial in self.trials.values() if trial.state is TrialState.RUNNING]

    @property
    def best_trial(self) -> TrialLine | None:
        return self.trials.get(self.best[0]) if self.best else None

    @property
    def finished_trials(self) -> int:
        return sum(trial.state.finished for trial in self.trials.values())

    @property
    def epochs(self) -> int:
        return sum(len(trial.curve) for trial in self.trials.values())

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent: the service's word if it spoke, else by trials and epochs."""
        if self.state is ExperimentState.COMPLETED:
            return 1.0
        budget = self.experiment.budget
        by_trials = self.finished_trials / budget.max_trials
        by_epochs = self.epochs / (budget.max_trials * budget.max_epochs)
        told = self.progress.fraction if self.progress else 0.0
        return min(1.0, max(by_trials, by_epochs, told))

    def _fold(self, kind: EventType, data: JsonObject) -> str | None:
        if kind is EventType.EXPERIMENT_STATE:
            return self._experiment_state(data)
        trial = self._trial(data)
        match kind:
            case EventType.TRIAL_CREATED:
                hyperparameters = data.get("hyperparameters")
                trial.hyperparameters = hyperparameters if isinstance(hyperparameters, dict) else {}
                trial.origin = str(data.get("origin") or "")
                trial.state = TrialState.RUNNING
                return f"trial {trial.number} ({trial.origin}) {fmt.settings(trial.hyperparameters)}"
            case EventType.TRIAL_STATE:
                return self._trial_state(trial, data)
            case EventType.TRIAL_MEASUREMENT:
                epoch = data.get("epoch")
                if isinstance(epoch, int):
                    trial.curve[epoch] = _number(data.get("value"))
                    if self.best is not None:
                        self.best_course.append(self.best[1])
            case EventType.EXPERIMENT_BEST:
                return self._new_best(trial, data)
            case EventType.WORKER_LOST:
                trial.state = TrialState.QUEUED
                return f"trial {trial.number}: its worker was lost; it waits for another one"
        return None

    def _experiment_state(self, data: JsonObject) -> str:
        self.state = ExperimentState(str(data.get("state")))
        reason = data.get("reason")
        self.reason = str(reason) if reason else None
        return f"experiment {self.state}" + (f": {self.reason}" if self.reason else "")

    def _trial_state(self, trial: TrialLine, data: JsonObject) -> str | None:
        before = trial.state
        trial.state = TrialState(str(data.get("state")))
        reason = data.get("reason")
        trial.reason = str(reason) if reason else None
        if trial.state is before or trial.state is TrialState.RUNNING:
            return None
        value = _number(data.get("value"))
        ending = f"trial {trial.number} {trial.state}"
        if trial.epoch:
            ending += f" after epoch {trial.epoch}"
        if value is not None:
            ending += f" at {fmt.number(value)}"
        return ending + (f": {trial.reason}" if trial.reason else "")

    def _new_best(self, trial: TrialLine, data: JsonObject) -> str | None:
        value, epoch = _number(data.get("value")), data.get("epoch")
        if value is None:
            return None
        self.best = (trial.id, value, epoch if isinstance(epoch, int) else None)
        self.best_course.append(value)
        return f"best {fmt.number(value)} by trial {trial.number}" + (f", epoch {epoch}" if epoch else "")

    def _trial(self, data: JsonObject) -> TrialLine:
        identity, number = str(data.get("trial")), data.get("number")
        if identity not in self.trials:
            self.trials[identity] = TrialLine(identity, number if isinstance(number, int) else 0)
        return self.trials[identity]


def render(picture: Picture, width: int, height: int) -> RenderableType:
    """The picture for a terminal of this size, in characters."""
    inner = max(20, width - 4)
    parts: list[RenderableType] = [_bar(picture, inner), _counts(picture), Text(), _best(picture, inner)]
    # What is not essential gives way on a low terminal: first trials, then events.
    room = height - _ESSENTIAL_LINES - (2 if picture.notice else 0)
    running = picture.running
    if running and room >= 4:
        shown = min(_SHOWN_TRIALS, len(running), room - 3)
        parts += [Text(), _running(running, shown, inner)]
        room -= shown + 2 + (len(running) > shown)
    if picture.recent and room >= 2:
        newest = list(picture.recent)[-(room - 1) :]
        parts += [Text(), *(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in newest)]
    if picture.notice:
        parts += [Text(), Text(picture.notice, style="yellow", no_wrap=True, overflow="ellipsis")]
    return Panel(Group(*parts), title=_title(picture), title_align="left", subtitle=_HINT, subtitle_align="left")


_HINT = Text("Ctrl-C leaves; the experiment goes on", style="dim")


def _title(picture: Picture) -> Text:
    experiment = picture.experiment
    what = " on ".join(filter(None, (experiment.network, experiment.dataset))) or experiment.mode.value
    state = picture.state or experiment.state
    return Text.assemble((experiment.name, "bold"), "  ", what, "  ", fmt.state(state), "  ", (experiment.id, "dim"))


def _bar(picture: Picture, width: int) -> RenderableType:
    fraction = picture.fraction
    ended = picture.state is not None and picture.state.finished
    eta = picture.progress.eta_seconds if picture.progress else None
    tail = "done" if ended else f"ETA {fmt.duration(eta)}" if eta is not None else "ETA –"
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=1.0, completed=fraction, width=max(10, width - 22)),
        Text(f"{100 * fraction:3.0f} %"),
        Text(tail, style="dim"),
    )
    return row


def _counts(picture: Picture) -> Text:
    counts: dict[str, int] = {}
    for trial in picture.trials.values():
        counts[trial.state.value] = counts.get(trial.state.value, 0) + 1
    text = Text(f"trials {picture.finished_trials}/{picture.experiment.budget.max_trials}", no_wrap=True)
    for name, count in sorted(counts.items()):
        text.append("  ")
        text.append_text(Text(f"{count} ") + fmt.state(name))
    text.append(f"  epochs {picture.epochs}")
    if picture.progress:
        text.append(f"  {fmt.duration(picture.progress.seconds)}", style="dim")
    return text


def _best(picture: Picture, width: int) -> RenderableType:
    trial, metric = picture.best_trial, picture.experiment.metric
    if picture.best is None or trial is None:
        return Text(f"no {metric.name} yet", style="dim")
    _, value, epoch = picture.best
    head = Text.assemble(
        f"best {metric.name} ",
        (fmt.number(value), "bold green"),
        f"  trial {trial.number}"
        + (f", epoch {epoch}" if epoch else "")
        + (f"  ({trial.origin})" if trial.origin else ""),
        no_wrap=True,
        overflow="ellipsis",
    )
    grid = Table.grid(padding=(0, 1))
    curve_width = max(8, width - 16)
    grid.add_row(Text("so far", style="dim"), Text(fmt.sparkline(picture.best_course, curve_width), style="green"))
    grid.add_row(Text("its curve", style="dim"), Text(fmt.sparkline(trial.values, curve_width), style="cyan"))
    settings = Text(fmt.settings(trial.hyperparameters), style="dim", no_wrap=True, overflow="ellipsis")
    return Group(head, settings, grid)


def _running(running: list[TrialLine], count: int, width: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for name, justify in (("trial", "right"), ("epoch", "right"), ("value", "right"), ("origin", "left"), ("", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for trial in running[:count]:
        table.add_row(
            str(trial.number),
            str(trial.epoch or "–"),
            fmt.number(trial.value),
            trial.origin,
            fmt.sparkline(trial.values, min(24, max(4, width - 44))),
        )
    if len(running) > count:
        table.add_row("…", "", "", f"{len(running) - count} more", "")
    return table


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
