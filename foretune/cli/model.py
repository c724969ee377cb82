"""`foretune model`: what proposals and recommendations rest on, and which version of it."""

from __future__ import annotations

from typing import Annotated

import typer

from foretune.cli.failures import guarded
from foretune.cli.options import AsJson, connect
from foretune.cli.terminal import note, print_json, print_table
from foretune.json_types import JsonObject
from foretune.wire.histories import MetaLearner

model = typer.Typer(rich_markup_mode=None)


@model.callback(invoke_without_command=True)
@guarded
def model_default(context: typer.Context) -> None:
    """The model of your histories: show (the default), fit, rollback.

    Examples:

        foretune model

        foretune model fit

        foretune model rollback 3
    """
    if context.invoked_subcommand is None:
        show(context, as_json=False)


@model.command()
@guarded
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the histories, and the versions of the model with what their replay said.

    Example:

        foretune model show --json
    """
    with connect(context) as client:
        _print(client.metalearner(), as_json)


@model.command()
@guarded
def fit(context: typer.Context, as_json: AsJson = False) -> None:
    """Make histories of what has finished and fit a model on them; it is used if its replay is no worse.

    Example:

        foretune model fit
    """
    with connect(context) as client:
        _print(client.fit_metalearner(), as_json)


@model.command()
@guarded
def rollback(context: typer.Context, version: Annotated[int, typer.Argument(min=1)], as_json: AsJson = False) -> None:
    """Use an earlier version again.

    Example:

        foretune model rollback 3
    """
    with connect(context) as client:
        _print(client.roll_back_metalearner(version), as_json)


def _print(answer: JsonObject, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    found = MetaLearner.model_validate(answer)
    imported = f", {found.imported} of them imported" if found.imported else ""
    starter = "; the starter history is heard beside them" if found.starter else ""
    note(f"{found.experiments} histories{imported}, {found.trials} trials{starter}")
    print_table(
        (
            *("#version", "state", "#histories", "#regret", "#by chance", "#plain portfolio"),
            *("likeness by", "fitted", "why refused"),
        ),
        (
            (
                str(one.version),
                one.state,
                str(one.experiments) if one.state != "FITTING" else f"{one.fitted}/{one.experiments}",
                *(
                    f"{one.scores[side]:.3f}" if side in one.scores else "–"
                    for side in ("model", "random", "portfolio")
                ),
                "–" if one.finished_at is None else "learned space" if one.space and one.space.used else "features",
                f"{one.finished_at:%Y-%m-%d %H:%M}" if one.finished_at else "–",
                one.reason or "",
            )
            for one in found.versions
        ),
        empty="no model has been fitted yet",
    )
