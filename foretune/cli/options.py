"""What several commands take: options, arguments, and the client they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from foretune.client import Client, RetryPolicy

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
ExperimentId = Annotated[
    str, typer.Argument(metavar="ID", help="An id, its beginning or end, a name, or `last`.", show_default=False)
]
State = Annotated[str | None, typer.Option("--state", help="Only those in this state, for example RUNNING.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")]


@dataclass(frozen=True)
class Door:
    """Where the service is, as given before the command."""

    url: str | None = None
    api_key: str | None = None


def connect(context: typer.Context, give_up_after_s: float = 15.0) -> Client:
    """The client for a command. Raises InvalidRequest for a URL or key that cannot be one."""
    door = context.find_object(Door) or Door()
    return Client(door.url, door.api_key, retry=RetryPolicy(give_up_after_s=give_up_after_s, give_up_unseen_s=1.0))


def one_of(kind: type[StrEnum], value: str | None, option: str) -> str | None:
    """`value` in capitals if it is a member of the enumeration `kind`. Raises typer.BadParameter."""
    if value is None:
        return None
    members = [member.value for member in kind]
    if value.upper() not in members:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(members)}", param_hint=option)
    return value.upper()
