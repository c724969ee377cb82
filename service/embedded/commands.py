"""The commands `foretune up` and `foretune demo`, attached to the command line by entry points.

Everything heavier than typer and rich is imported when a command runs: `foretune --help` stays quick.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from foretune.errors import ForetuneError
from service.embedded.faults import StackError
from service.embedded.interrupts import termination_as_interrupt
from service.embedded.layout import default_data_dir

if TYPE_CHECKING:
    from service.embedded.child import ChildEvent
    from service.embedded.stack import RunningStack

_console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)


class LogLevel(StrEnum):
    """How much the API and the workers write to their logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where everything is kept. Default: ~/.foretune", file_okay=False),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on. 0.0.0.0 opens it to the network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes any free one.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=256,
        help="Train workers. Default: one a GPU, else one a core less a quarter (at most 8).",
    ),
]


def up(
    data_dir: DataDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8642,
    workers: Workers = None,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="For the API and the workers.")] = LogLevel.INFO,
) -> None:
    """Run the whole service on this machine until Ctrl-C: Postgres, Redis, API, workers.

    Ctrl-C once stops everything in order; twice kills it. Nothing that was answered with success is lost either way.

    Examples:

        foretune up

        foretune up --data-dir /srv/foretune --host 0.0.0.0 --workers 4
    """
    from service.embedded.stack import StackOptions, start

    options = StackOptions(
        data_dir=data_dir or default_data_dir(),
        host=host,
        port=port,
        train_workers=workers,
        log_level=log_level.value,
        on_progress=_show_progress,
        on_event=_show_event,
    )
    with termination_as_interrupt():
        try:
            with start(options) as stack:
                _show_running(stack)
                _wait(stack)
        except KeyboardInterrupt:
            _console.print("stopped", style="dim")
        except StackError as error:
            fail(error)


def demo(
    data_dir: DataDir = None,
    port: Port = 8642,
    workers: Workers = None,
) -> None:
    """Start the service, tune a small network on handwritten digits, show what comes out, and stop.

    A second run reuses the data folder and knows the first run's history.

    Examples:

        foretune demo

        foretune demo --data-dir /tmp/foretune-demo
    """
    from service.embedded.demo import run
    from service.embedded.stack import StackOptions

    options = StackOptions(
        data_dir=data_dir or default_data_dir(),
        port=port,
        train_workers=workers,
        on_progress=_show_progress,
        on_event=_show_event,
    )
    with termination_as_interrupt():
        try:
            raise typer.Exit(run(options))
        except KeyboardInterrupt:
            _console.print("stopped; nothing is left running", style="dim")
            raise typer.Exit(130) from None
        except StackError as error:
            fail(error)
        except ForetuneError as error:
            _errors.print(f"[bold red]error[/] ({error.code}): {escape(error.message)}", soft_wrap=True)
            raise typer.Exit(1) from None


def fail(error: StackError) -> None:
    """Say in one message what is wrong and end with its exit status."""
    _errors.print(f"[bold red]error[/] ({error.code}): {escape(error.message)}", soft_wrap=True)
    raise typer.Exit(error.exit_status)


def _wait(stack: RunningStack) -> None:
    try:
        stack.wait()
    except KeyboardInterrupt:
        _console.print("\nstopping (Ctrl-C again kills)", style="dim")
        raise


def _show_progress(message: str) -> None:
    _console.print(escape(message), style="dim", soft_wrap=True)


def _show_event(event: ChildEvent) -> None:
    from service.embedded.child import ChildEventKind

    if event.kind is ChildEventKind.DIED:
        _errors.print(f"[yellow]warning[/]: {escape(event.detail)}", soft_wrap=True)
    elif event.kind is ChildEventKind.CRASH_LOOP:
        _errors.print(f"[bold red]crash loop[/]: {escape(event.detail)}", soft_wrap=True)


def _show_running(stack: RunningStack) -> None:
    rows = (
        ("API", f"{stack.url}/v1   (pages: {stack.url}/docs)"),
        ("key file", f"{stack.key_file}"),
        ("logs", f"{stack.log_dir}/{{{','.join(stack.log_names)}}}.log"),
        ("shell", f'export FORETUNE_URL={stack.url} FORETUNE_API_KEY="$(cat {stack.key_file})"'),
        ("stop", f"Ctrl-C, or kill {os.getpid()}"),
    )
    _console.print(f"[bold green]Foretune is running[/] at [bold]{stack.url}[/] (ready in {stack.ready_after_s:.1f} s)")
    for name, text in rows:
        _console.print(f"  [dim]{name:<9}[/]{escape(text)}", soft_wrap=True)
