"""`foretune keys`: the first key of a database, and the others. It talks to Postgres, so it needs no key itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from foretune.cli.failures import guarded
from foretune.cli.terminal import note, print_json, print_table
from foretune.client.requests import checked
from foretune.errors import InvalidRequest
from foretune.wire.service import Key, KeyRequest
from service.db import migrate
from service.db.session import Database, Transaction
from service.embedded.layout import Layout, default_data_dir
from service.usecases import keys as usecase

_PAGE = 200

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="The folder of a running `foretune up`. Default: the database of DATABASE_URL, else ~/.foretune.",
        file_okay=False,
    ),
]
Project = Annotated[str, typer.Option("--project", help="The project that the key belongs to, by name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@keys.callback()
def describe() -> None:
    """Make, list and revoke API keys, on the machine that can reach the database.

    Examples:

        foretune keys create laptop

        docker compose exec api foretune keys create laptop --project vision
    """


@keys.command()
@guarded
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; you see it in the list.")],
    project: Project = usecase.LOCAL_PROJECT,
    expires_in_days: Annotated[
        float | None, typer.Option("--expires-in-days", help="It never expires unless given.", min=0.001, max=36500)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and its project when there is none of that name. The key is printed once; only its hash is kept.

    Examples:

        foretune keys create laptop

        export FORETUNE_API_KEY="$(foretune keys create ci --project vision --expires-in-days 90)"
    """
    request = checked(KeyRequest, {"name": name, "expires_in_days": expires_in_days})
    checked(KeyRequest, {"name": project})  # a project's name obeys the same rules
    with _transaction(data_dir) as tx:
        made = usecase.create_key(tx, usecase.create_project(tx, project).id, request)
    if as_json:
        print_json(made)
        return
    typer.echo(made.key)
    until = f"until {made.expires_at:%Y-%m-%d %H:%M} UTC" if made.expires_at else "until it is revoked"
    note(f"{made.id}, for project {made.project}, valid {until}; it is not shown again")


@keys.command("list")
@guarded
def list_keys(project: Project = usecase.LOCAL_PROJECT, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List a project's keys, newest first: their first characters, never the keys.

    Example:

        foretune keys list --project vision
    """
    with _transaction(data_dir) as tx:
        found = _all(tx, usecase.find_project(tx, project).id)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "begins with", "made", "last used", "state"),
        (
            (one.id, one.name, f"{one.prefix}…", f"{one.created_at:%Y-%m-%d}", _last_used(one), _state(one))
            for one in found
        ),
        empty=f"project {project!r} has no keys; make one with `foretune keys create NAME`",
    )


@keys.command()
@guarded
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `foretune keys list` shows it: key_…")],
    project: Project = usecase.LOCAL_PROJECT,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. Whoever uses it is refused within seconds.

    Example:

        foretune keys revoke key_01k9…
    """
    with _transaction(data_dir) as tx:
        usecase.revoke_key(tx, usecase.find_project(tx, project).id, key_id)
    note(f"{key_id} is revoked")


@contextmanager
def _transaction(data_dir: Path | None) -> Iterator[Transaction]:
    """A transaction on the database that was meant. Raises Unavailable, SchemaBehind, SchemaTooNew, InvalidRequest."""
    url = _database_url(data_dir)
    migrate.check(url)
    database = Database(url, pool_size=1)
    try:
        with database.transaction() as tx:
            yield tx
    finally:
        database.close()


def _database_url(data_dir: Path | None) -> str:
    named = os.environ.get("DATABASE_URL")
    if data_dir is None and named:
        return named
    layout = Layout.of(data_dir or default_data_dir())
    record = layout.read_stack_record() if layout.is_locked() else None
    if record is None:
        raise InvalidRequest(
            f"no service runs on {layout.root}: start it with `foretune up`, name another folder with --data-dir, "
            "or set DATABASE_URL"
        )
    return record.database_url


def _all(tx: Transaction, project: str) -> list[Key]:
    found: list[Key] = []
    cursor: str | None = None
    while True:
        page = usecase.list_page(tx, project, limit=_PAGE, cursor=cursor)
        found.extend(page.items)
        if page.next is None:
            return found
        cursor = page.next


def _last_used(key: Key) -> str:
    return f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    return f"valid until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
