"""Where output goes: people get rich text, pipes get plain text that is never cut off.

Names, reasons and labels are written by others: whatever steers a terminal is left out of what is printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import typer
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from foretune.texts import is_unseen, shown

_PIPE_WIDTH = 10_000


class CleanConsole(Console):
    """A console that lets no control character of a text through; its own colours are no texts."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def console() -> Console:
    """For stdout. A pipe gets lines as wide as they are."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return CleanConsole(highlight=False, width=width, soft_wrap=width is not None)


def complain(message: str, code: str | None = None) -> None:
    """An error on stderr."""
    label = f"[bold red]error[/] [dim]({escape(code)})[/]" if code else "[bold red]error[/]"
    CleanConsole(stderr=True, highlight=False).print(f"{label} {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A remark on stderr, so that stdout holds results only."""
    CleanConsole(stderr=True, highlight=False).print(Text(message, style="dim"), soft_wrap=True)


def print_json(value: object) -> None:
    """A model, a list of models, or plain JSON, indented."""
    typer.echo(_escaped(json.dumps(_plain(value), indent=2, ensure_ascii=False)))


def print_json_line(value: object) -> None:
    """A model or plain JSON on one line, at once."""
    typer.echo(_escaped(json.dumps(_plain(value), ensure_ascii=False)))
    sys.stdout.flush()


def say(message: str) -> None:
    """A line of results, as it is."""
    typer.echo(shown(message))


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
        table.add_row(*(cell if isinstance(cell, Text) else Text(_one_line(cell)) for cell in row))
    console().print(table)


def _one_line(cell: str) -> str:
    return " ".join(shown(cell).splitlines()) if "\n" in cell else shown(cell)


def _escaped(text: str) -> str:
    """The same JSON; what steers a terminal is written as JSON's escapes."""
    if text.isascii():
        return text
    return re.sub(r"[^\x00-\x7e]", lambda one: json.dumps(one[0])[1:-1] if is_unseen(one[0]) else one[0], text)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
