"""`foretune status | list | trials | best`: what there is and how it stands."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from foretune.cli import format as fmt
from foretune.cli import identify
from foretune.cli.failures import ExitCode, guarded
from foretune.cli.options import AsJson, ExperimentId, Limit, State, connect, one_of
from foretune.cli.terminal import console, note, print_json, print_table
from foretune.cli.watch import show_best
from foretune.metrics import Goal
from foretune.states import ExperimentState, TrialState
from foretune.wire.trials import Trial


@guarded
def status(context: typer.Context, experiment: ExperimentId = "last", as_json: AsJson = False) -> None:
    """Show how an experiment stands.

    Exit code 0 whatever its state, so that scripts read the state itself.

    Examples:

        foretune status last

        foretune status digits-mlp --json | jq -r .state
    """
    with connect(context) as client:
        info = identify.experiment(client, experiment).info
    if as_json:
        print_json(info)
        return
    out = console()
    out.print(f"[bold]{escape(info.name)}[/]  {info.id}  ", fmt.state(info.state), soft_wrap=True)
    progress = info.progress
    trials = ", ".join(f"{count} {name}" for name, count in sorted(progress.trials.items())) or "none yet"
    rows = [
        ("what", " on ".join(filter(None, (info.network, info.dataset))) or info.mode.value),
        ("metric", f"{info.metric.goal} {info.metric.name}"),
        ("trials", f"{trials} of {info.budget.max_trials}"),
        ("epochs", f"{progress.epochs} (at most {info.budget.max_epochs} a trial)"),
        ("spent", f"{progress.fraction:.0%} of the budget in {fmt.duration(progress.seconds)}"),
        ("left", fmt.duration(progress.eta_seconds) if progress.eta_seconds is not None else None),
        ("created", fmt.age(info.created_at)),
        ("why", info.reason),
    ]
    for label, value in rows:
        if value:
            out.print(f"  [dim]{label:8}[/] {escape(value)}", soft_wrap=True)
    if info.best:
        show_best(info, out)


@guarded
def list_experiments(
    context: typer.Context,
    state: State = None,
    label: Annotated[str | None, typer.Option(help="Only those with this label, as key:value.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List experiments, newest first.

    Examples:

        foretune list --state RUNNING

        foretune list --label team:vision --limit 100 --json
    """
    chosen = one_of(ExperimentState, state, "--state")
    with connect(context) as client:
        asked = None if limit is None else limit + 1
        infos = [one.info for one in client.experiments.list(state=chosen, label=label, limit=asked)]
    more = limit is not None and len(infos) > limit
    infos = infos[:limit]
    if as_json:
        print_json(infos)
        return
    print_table(
        ("id", "name", "state", "#done", "#trials", "metric", "#best", "created"),
        (
            (
                info.id,
                info.name,
                fmt.state(info.state),
                f"{info.progress.fraction:.0%}",
                f"{sum(info.progress.trials.values())}/{info.budget.max_trials}",
                info.metric.name,
                fmt.number(info.best.value if info.best else None),
                fmt.age(info.created_at),
            )
            for info in infos
        ),
        empty="no experiments; submit one with `foretune submit FILE.yaml`",
    )
    if more:
        note(f"the newest {limit}; there are more: --limit shows them")


@guarded
def trials(
    context: typer.Context,
    experiment: ExperimentId = "last",
    state: State = None,
    limit: Limit = None,
    by_value: Annotated[bool, typer.Option("--best-first", help="Sort by value instead of number.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an experiment's trials.

    Examples:

        foretune trials last --best-first -n 5

        foretune trials digits-mlp --state FAILED
    """
    chosen = one_of(TrialState, state, "--state")
    with connect(context) as client:
        handle = identify.experiment(client, experiment)
        found = list(client.trials.list(handle.id, state=chosen, limit=None if by_value else limit))
    if by_value:
        goal = handle.info.metric.goal
        found = sorted(found, key=lambda trial: _rank(trial, goal))[:limit]
    if as_json:
        print_json(found)
        return
    print_table(
        ("#trial", "id", "state", "#epochs", "#value", "#best", "origin", "hyperparameters", "reason"),
        (
            (
                str(trial.number),
                trial.id,
                fmt.state(trial.state),
                str(trial.epochs),
                fmt.number(trial.value),
                fmt.number(trial.best_value),
                trial.origin,
                fmt.settings(trial.hyperparameters),
                trial.reason or "",
            )
            for trial in found
        ),
        empty="no trials" + (f" in state {chosen}" if chosen else " yet"),
    )


@guarded
def best(context: typer.Context, experiment: ExperimentId = "last", as_json: AsJson = False) -> None:
    """Show the best trial: value, epoch, hyperparameters, schedule.

    Exit code 4 while no trial has given a value.

    Examples:

        foretune best last

        foretune best digits-mlp --json | jq .hyperparameters
    """
    with connect(context) as client:
        info = identify.experiment(client, experiment).info
    if info.best is None:
        note(f"no trial of {info.id} has given a value yet")
        raise typer.Exit(ExitCode.REFUSED)
    if as_json:
        print_json(info.best)
    else:
        show_best(info, console())


def _rank(trial: Trial, goal: Goal) -> tuple[bool, float]:
    value = trial.best_value
    return (value is None, 0.0 if value is None else -goal.sign * value)
