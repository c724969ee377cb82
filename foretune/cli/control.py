"""`foretune pause | resume | cancel | delete`: steering an experiment."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from foretune.cli import identify
from foretune.cli.failures import ExitCode, guarded
from foretune.cli.options import AsJson, ExperimentId, connect
from foretune.cli.terminal import note, print_json


@guarded
def pause(context: typer.Context, experiment: ExperimentId, as_json: AsJson = False) -> None:
    """Pause an experiment: running epochs end, no new ones begin.

    Example:

        foretune pause last
    """
    _steer(context, experiment, "pause", as_json)


@guarded
def resume(context: typer.Context, experiment: ExperimentId, as_json: AsJson = False) -> None:
    """Let a paused experiment go on.

    Example:

        foretune resume last
    """
    _steer(context, experiment, "resume", as_json)


@guarded
def cancel(context: typer.Context, experiment: ExperimentId, as_json: AsJson = False) -> None:
    """End an experiment now; all its results stay.

    Example:

        foretune cancel digits-mlp
    """
    _steer(context, experiment, "cancel", as_json)


@guarded
def delete(
    context: typer.Context,
    experiment: ExperimentId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a finished experiment with all its trials and checkpoints.

    A terminal is asked first; elsewhere --yes is needed.

    Examples:

        foretune delete digits-mlp

        foretune delete exp_01k7 --yes
    """
    with connect(context) as client:
        handle = identify.experiment(client, experiment)
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("deleting needs --yes where nobody can be asked", param_hint="--yes")
            if not typer.confirm(f"Delete {handle.id} ({handle.name}) with all its trials?"):
                raise typer.Exit(ExitCode.FAILED)
        handle.delete()
    if as_json:
        print_json({"deleted": handle.id})
    else:
        note(f"deleted {handle.id}")


def _steer(context: typer.Context, experiment: str, verb: str, as_json: bool) -> None:
    with connect(context) as client:
        handle = identify.experiment(client, experiment)
        match verb:
            case "pause":
                handle.pause()
            case "resume":
                handle.resume()
            case _:
                handle.cancel()
    if as_json:
        print_json(handle.info)
    else:
        note(f"{handle.id} is {handle.state}")
