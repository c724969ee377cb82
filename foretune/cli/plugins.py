"""Commands of other packages: found by the entry-point group `foretune.commands`, imported when they are run.

An entry point names a function, which becomes a command, or a typer.Typer, which becomes a group of commands.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer
import typer.main

from foretune.cli.failures import ExitCode
from foretune.cli.terminal import complain

GROUP = "foretune.commands"
_HELP = {
    "up": "Run the whole service on this machine: Postgres, Redis, API, workers.",
    "demo": "Start the service, tune a small network, show what comes out, and stop.",
    "keys": "Make, list and revoke API keys.",
}
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def attach(app: typer.Typer) -> None:
    """Adds a command for each entry point, without importing any of them."""
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        help_text = _HELP.get(entry.name, f"From {entry.dist.name if entry.dist else entry.module}.")
        app.command(entry.name, help=help_text, context_settings=_PASS_ON, add_help_option=False)(_runner(entry))


def _runner(entry: EntryPoint) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        try:
            target: object = entry.load()
            group = target if isinstance(target, typer.Typer) else _alone(entry.name, target)
            command = typer.main.get_command(group)
            code: object = command.main(list(context.args), prog_name=f"foretune {entry.name}", standalone_mode=False)
        except ModuleNotFoundError as error:
            complain(
                f"`foretune {entry.name}` needs more than the client ({error.name} is missing): "
                "pip install 'foretune[embedded]'"
            )
            raise typer.Exit(ExitCode.USAGE) from None
        if isinstance(code, int) and code:
            raise typer.Exit(code)

    return run


def _alone(name: str, target: object) -> typer.Typer:
    if not callable(target):
        raise TypeError(f"the entry point {name!r} of {GROUP} is neither a function nor a typer.Typer")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, context_settings={"help_option_names": ["--help", "-h"]})(target)
    return app
