"""The live picture: events folded in any grouping, and a rendering that fits every terminal."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from foretune.cli import format as fmt
from foretune.cli.live import Picture, render
from foretune.events import Event, EventType
from foretune.states import ExperimentState
from foretune.wire.experiments import Experiment, Progress


def experiment() -> Experiment:
    return Experiment.model_validate({
        "id": "exp_1", "name": "digits-mlp", "state": "RUNNING", "mode": "managed",
        "created_at": "2026-01-01T00:00:00Z",
        "dataset": "digits", "network": "mlp", "metric": {"name": "val_accuracy", "goal": "maximize"}, "space": [],
        "fixed": {}, "budget": {"max_trials": 4, "max_epochs": 10}, "stopping": "auto", "proposer": "auto",
        "priors": "auto", "parallelism": 8, "seed": 0, "share_history": True, "labels": {}, "features": {},
        "last_event": 0, "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0},
    })  # fmt: skip


def picture(*entries: tuple[str, dict[str, object]]) -> Picture:
    made = Picture(experiment())
    for sequence, (kind, data) in enumerate(entries, start=1):
        made.apply(Event(sequence, EventType(kind), data))  # type: ignore[arg-type]
    return made


def drawn(made: Picture, width: int = 100, height: int = 40) -> str:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(render(made, width, height))
    return console.export_text()


def trial(number: int, **more: object) -> dict[str, object]:
    return {"trial": f"tri_{number}", "number": number, **more}


RUNNING = [
    ("experiment.state", {"state": "RUNNING", "reason": None}),
    ("trial.created", trial(1, hyperparameters={"lr": 0.01, "width": 128}, origin="portfolio")),
    ("trial.measurement", trial(1, epoch=1, value=0.5)),
    ("experiment.best", trial(1, value=0.5, epoch=1)),
    ("trial.measurement", trial(1, epoch=2, value=0.9)),
    ("experiment.best", trial(1, value=0.9, epoch=2)),
    ("trial.created", trial(2, hyperparameters={"lr": 0.1, "width": 16}, origin="gp")),
    ("trial.measurement", trial(2, epoch=1, value=None)),
]


def test_the_picture_shows_what_runs_and_what_is_best() -> None:
    text = drawn(picture(*RUNNING))
    assert "digits-mlp  mlp on digits  RUNNING  exp_1" in text
    assert "best val_accuracy 0.9  trial 1, epoch 2  (portfolio)" in text
    assert "lr=0.01 width=128" in text
    assert "trials 0/4  2 RUNNING  epochs 3" in text
    assert "▁█" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["│", "1", "2", "0.9", "portfolio", "▁█", "│"] in rows
    assert ["│", "2", "1", "–", "gp", "│"] in rows


def test_before_the_first_value_and_after_the_end() -> None:
    assert "no val_accuracy yet" in drawn(picture())
    ended = picture(*RUNNING, ("experiment.state", {"state": "COMPLETED", "reason": "the target 0.9 is reached"}))
    assert ended.fraction == 1.0
    assert "100 % done" in drawn(ended)
    assert "experiment COMPLETED: the target 0.9 is reached" in drawn(ended)


def test_the_services_progress_counts_where_it_is_further() -> None:
    made = picture(*RUNNING)
    assert made.fraction == pytest.approx(3 / 40)
    made.progress = Progress(trials={}, epochs=3, seconds=70, fraction=0.6, eta_seconds=125.0)
    text = drawn(made)
    assert "60 %" in text
    assert "ETA 2m 05s" in text
    assert "1m 10s" in text


def test_a_lost_worker_and_a_lost_connection_are_told() -> None:
    made = picture(*RUNNING, ("worker.lost", trial(2, worker="w", attempts=1)))
    assert [one.number for one in made.running] == [1]
    made.notice = "connection lost, trying again"
    assert "its worker was lost" in drawn(made)
    assert "connection lost, trying again" in drawn(made)
    made.apply(Event(made.last_event + 1, EventType.TRIAL_STATE, trial(2, state="RUNNING")))
    assert made.notice is None


def test_lines_for_plain_output_leave_out_what_is_frequent() -> None:
    made = Picture(experiment())
    lines = [made.apply(Event(n, EventType(kind), data)) for n, (kind, data) in enumerate(RUNNING, start=1)]
    assert lines[2] is None
    assert lines[1] == "trial 1 (portfolio) lr=0.01 width=128"
    assert lines[5] == "best 0.9 by trial 1, epoch 2"
    state = trial(1, state="INFEASIBLE", reason="diverged at epoch 3", value=None)
    assert made.apply(Event(9, EventType.TRIAL_STATE, state)) == "trial 1 INFEASIBLE after epoch 2: diverged at epoch 3"


def test_events_that_come_again_change_nothing() -> None:
    made = picture(*RUNNING)
    before = drawn(made)
    for sequence, (kind, data) in enumerate(RUNNING, start=1):
        assert made.apply(Event(sequence, EventType(kind), data)) is None  # type: ignore[arg-type]
    assert drawn(made) == before


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 200), st.integers(5, 60), st.integers(0, 40))
def test_it_fits_every_terminal(width: int, height: int, trials: int) -> None:
    made = picture(
        *((kind, data) for n in range(1, trials + 1) for kind, data in (
            ("trial.created", trial(n, hyperparameters={f"parameter_{i}": i / 7 for i in range(9)}, origin="transfer")),
            ("trial.measurement", trial(n, epoch=1, value=n / 7)),
            ("experiment.best", trial(n, value=n / 7, epoch=1)),
        ))
    )  # fmt: skip
    lines = drawn(made, width, height).rstrip("\n").splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height - 1, 10)


def test_the_end_state_of_an_unknown_trial_is_no_error() -> None:
    made = picture(("trial.state", trial(7, state="FAILED", reason="boom", value=None)))
    assert made.state is None
    assert made.finished_trials == 1
    assert ExperimentState.RUNNING is made.experiment.state


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=300), st.integers(0, 60))
def test_a_sparkline_has_a_bar_for_every_share(values: list[float | None], width: int) -> None:
    line = fmt.sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(" ▁▂▃▄▅▆▇█")


def test_sparklines_follow_their_values() -> None:
    assert fmt.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 20) == "▁▂▃▄▅▆▇█"
    assert fmt.sparkline([5, 5, 5], 10) == "▄▄▄"
    assert fmt.sparkline([0, None, 7], 10) == "▁ █"
    assert fmt.sparkline([0, 0, 7, 7], 2) == "▁█"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0s"), (9.99, "10.0s"), (42.4, "42s"), (59.9, "60s"), (65, "1m 05s"), (3599, "59m 59s"),
     (7500, "2h 05m"), (90000, "1d 01h")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert fmt.duration(seconds) == text


def test_values_are_short() -> None:
    assert fmt.settings({"lr": 0.000123456, "on": True, "n": 128, "s": "adamw"}) == "lr=0.0001235 on=true n=128 s=adamw"
    assert fmt.number(math.nan) == "–"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert fmt.age(now - timedelta(seconds=65), now) == "1m 05s ago"
