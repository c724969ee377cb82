"""Watching an experiment: redrawn in a terminal, line by line elsewhere, and what came out in the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from foretune.cli import format as fmt
from foretune.cli.live import Picture, render
from foretune.client import Client
from foretune.errors import ForetuneError
from foretune.wire.experiments import Experiment, LrSchedule
from foretune.wire.recommendations import Recommendations

_POLL_S = 2.0


def watch(client: Client, experiment_id: str, console: Console, *, plain: bool | None = None) -> Experiment:
    """Follows an experiment to its end, shows it on `console`, then what it recommends; gives its last state.

    `plain` prints lines instead of redrawing; by default wherever the console is no terminal. KeyboardInterrupt
    passes through: the experiment goes on without its watcher. Raises NotFound, ConnectionFailed.
    """
    picture = Picture(client.experiments.read(experiment_id))
    if plain if plain is not None else not console.is_terminal:
        _follow_plainly(client, picture, console)
    else:
        _follow_live(client, picture, console)
    experiment = client.experiments.read(experiment_id)
    show_result(client, experiment, console)
    return experiment


def _follow_plainly(client: Client, picture: Picture, console: Console) -> None:
    def interrupted(error: ForetuneError) -> None:
        console.print(Text(f"connection lost, trying again: {error.message}"))

    for event in client.stream(picture.experiment.id, on_interruption=interrupted):
        line = picture.apply(event)
        if line is not None:
            console.print(Text(f"{100 * picture.fraction:3.0f} %  {line}"))


def _follow_live(client: Client, picture: Picture, console: Console) -> None:
    guard = threading.Lock()

    def draw() -> RenderableType:
        with guard:
            return render(picture, console.width, console.height)

    def interrupted(error: ForetuneError) -> None:
        with guard:
            picture.notice = f"connection lost, trying again: {error.message}"

    def heard(experiment: Experiment) -> None:
        with guard:
            picture.experiment, picture.progress = experiment, experiment.progress

    with (
        _Poll(client, picture.experiment.id, heard),
        Live(get_renderable=draw, console=console, refresh_per_second=8, transient=True),
    ):
        for event in client.stream(picture.experiment.id, on_interruption=interrupted):
            with guard:
                picture.apply(event)


class _Poll:
    """Asks for the experiment now and then: its progress and ETA are no events."""

    def __init__(self, client: Client, experiment_id: str, heard: Callable[[Experiment], None]) -> None:
        self._client, self._id, self._heard = client, experiment_id, heard
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foretune-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Not for long: a call that waits for a lost service must not keep the terminal.
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._over.is_set():
            # The stream, which is tried again with more patience, says what is wrong.
            with contextlib.suppress(ForetuneError):
                self._heard(self._client.experiments.read(self._id))
            self._over.wait(_POLL_S)


def show_result(client: Client, experiment: Experiment, console: Console) -> None:
    """How an experiment ended, its best trial, and what it recommends."""
    spent = f"{sum(experiment.progress.trials.values())} trials, {experiment.progress.epochs} epochs"
    line = Text.assemble((experiment.name, "bold"), "  ", fmt.state(experiment.state), "  ", spent)
    line.append(f", {fmt.duration(experiment.progress.seconds)}")
    if experiment.reason:
        line.append(f"  ({experiment.reason})", style="dim")
    console.print(line)
    show_best(experiment, console)
    if experiment.best is None:
        return
    try:
        recommendations = client.experiments.recommendation(experiment.id)
    except ForetuneError as error:
        console.print(Text(f"no recommendation: {error.message}", style="dim"))
    else:
        show_recommendations(recommendations, console, count=1)


def show_best(experiment: Experiment, console: Console) -> None:
    """The best trial of an experiment."""
    best = experiment.best
    if best is None:
        console.print(Text("no trial has given a value", style="dim"))
        return
    at = f"  trial {best.number}" + (f", epoch {best.epoch}" if best.epoch else "")
    console.print(Text.assemble(f"best {experiment.metric.name} ", (fmt.number(best.value), "bold green"), at))
    console.print(Text("  " + fmt.settings(best.hyperparameters)))
    if best.lr_schedule:
        console.print(_schedule(best.lr_schedule))


def show_recommendations(recommendations: Recommendations, console: Console, count: int | None = None) -> None:
    """Ranked hyperparameters, each with its schedule and what is expected of it."""
    shown = recommendations.recommendations[:count]
    model = recommendations.model
    basis = (
        f"{model.experiments} {'history' if model.experiments == 1 else 'histories'} with {model.trials} trials"
        if model.experiments
        else "no histories of your own yet"
    )
    console.print(
        Text.assemble(("recommended", "bold"), (f"  confidence {recommendations.confidence}; {basis}", "dim"))
    )
    for one in shown:
        head = Text(f"{one.rank}. {one.origin}", style="cyan")
        if one.predicted:
            interval = f"{fmt.number(one.predicted.low)} … {fmt.number(one.predicted.high)}"
            head.append(f"  {one.predicted.metric} {fmt.number(one.predicted.median)} ({interval})", style="default")
        console.print(head)
        grid = Table.grid(padding=(0, 2))
        for name, value in one.hyperparameters.items():
            grid.add_row(Text("  " + name, style="dim"), Text(fmt.setting(value)))
        console.print(grid)
        if one.lr_schedule:
            console.print(_schedule(one.lr_schedule))
        for evidence in one.evidence[:3]:
            console.print(
                Text(
                    f"  like {evidence.experiment} ({evidence.similarity:.0%}), best {fmt.number(evidence.best)}", "dim"
                )
            )


def _schedule(schedule: LrSchedule) -> Text:
    shape = (
        f"peak {fmt.number(schedule.peak)}, warm-up {schedule.warmup_fraction:.0%}, "
        f"plateau {schedule.plateau_fraction:.0%}, decay^{schedule.decay_exponent:.2g} "
        f"to {schedule.final_fraction:.0%}"
    )
    # From zero, so that a constant schedule looks constant and a small decay small.
    course = fmt.sparkline([0.0, *schedule.values], 41)[1:]
    return Text.assemble("  learning rate ", (course, "cyan"), (f"  {shape}", "dim"))
