"""The command `foretune`. Exit codes stand in `failures.py` and in `foretune --help`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from foretune.cli import control, data, doctor, inspect, knowledge, model, plugins, submit
from foretune.cli.options import Door
from foretune.cli.version import own_version

app = typer.Typer(
    name="foretune",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    epilog=(
        "Exit codes: 0 done; 1 the experiment or operation failed; 2 wrong usage or input; 3 the service cannot be "
        "reached; 4 no such thing, or its state forbids it; 5 key missing or refused; 130 interrupted."
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(own_version())
        raise typer.Exit


@app.callback()
def foretune(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", help="Where the service is. Default: FORETUNE_URL, or http://127.0.0.1:8642")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", help="Default: FORETUNE_API_KEY, or ~/.foretune/api_key for a service on this machine."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Hyperparameters from every job you ever ran.

    Start with `foretune demo`, or with `foretune up` and `foretune submit job.yaml --watch`.
    """
    context.obj = Door(url, api_key)


app.command()(submit.submit)
app.command()(submit.watch)
app.command()(inspect.status)
app.command("list")(inspect.list_experiments)
app.command()(inspect.trials)
app.command()(inspect.best)
app.command()(knowledge.recommend)
app.add_typer(data.datasets, name="datasets")
app.command()(data.networks)
app.command("import")(knowledge.import_histories)
app.command()(knowledge.export)
app.add_typer(model.model, name="model")
app.command()(control.pause)
app.command()(control.resume)
app.command()(control.cancel)
app.command()(control.delete)
app.command()(doctor.doctor)
plugins.attach(app)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal without UTF-8 gets question marks in place of sparklines, not a traceback.
            stream.reconfigure(errors="replace")
    app()
