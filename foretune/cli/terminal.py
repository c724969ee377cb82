"""Where output goes: people get rich text, pipes get plain text that is never cut off."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 10_000


def console() -> Console:
    """For stdout. A pipe gets lines as wide as they are."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, width=width, soft_wrap=width is not None)


def complain(message: str, code: str | None = None) -> None:
    """An error on stderr."""
    label = f"[bold red]error[/] [dim]({escape(code)})[/]" if code else "[bold red]error[/]"
    Console(stderr=True, highlight=False).print(f"{label} {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A remark on stderr, so that stdout holds results only."""
    Console(stderr=True, highlight=False).print(Text(message, style="dim"), soft_wrap=True)


def print_json(value: object) -> None:
    """A model, a list of models, or plain JSON, indented."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], empty: str) -> None:
    """A table; columns whose name starts with `#` are numbers. `empty` is said when there are no rows."""
    listed = list(rows)
    if not listed:
        note(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix("#"), justify="right" if column.startswith("#") else "left", no_wrap=True)
    for row in listed:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console().print(table)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
