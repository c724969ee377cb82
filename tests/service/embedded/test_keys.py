"""`foretune keys` against a real database: made, listed, used, revoked, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foretune.cli.failures import ExitCode
from foretune.cli.main import app
from foretune.errors import Unauthenticated
from service.db.session import Database
from service.embedded.layout import Layout, StackRecord
from service.usecases.keys import Caller, authenticate


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)


def caller_of(database: Database, key: str) -> Caller:
    with database.transaction() as tx:
        return authenticate(tx, key)


class TestMaking:
    def test_the_key_alone_is_on_stdout_and_works(self, database: Database) -> None:
        made = run("create", "laptop")
        assert made.exit_code == 0
        key = made.stdout.strip()
        assert key.startswith("ft_")
        assert "it is not shown again" in made.stderr
        assert caller_of(database, key).expires_at is None

    def test_keys_of_two_projects_are_two_callers(self, database: Database) -> None:
        one = run("create", "a", "--project", "vision").stdout.strip()
        other = run("create", "a", "--project", "speech").stdout.strip()
        again = run("create", "b", "--project", "vision").stdout.strip()
        assert caller_of(database, one).project == caller_of(database, again).project
        assert caller_of(database, one).project != caller_of(database, other).project

    def test_json_says_until_when(self, database: Database) -> None:
        made = json.loads(run("create", "ci", "--expires-in-days", "90", "--json").stdout)
        assert made["name"] == "ci"
        assert caller_of(database, made["key"]).expires_at is not None

    @pytest.mark.parametrize("arguments", [("create", ""), ("create", "x" * 201), ("create", "a", "--project", "")])
    def test_a_name_that_is_none(self, database: Database, arguments: tuple[str, ...]) -> None:
        refused = run(*arguments)
        assert refused.exit_code == ExitCode.USAGE
        assert "name" in refused.stderr
        assert refused.stdout == ""


class TestListing:
    def test_a_list_shows_prefixes_and_states_but_no_key(self, database: Database) -> None:
        key = run("create", "laptop").stdout.strip()
        run("create", "ci", "--expires-in-days", "1")
        listed = run("list").stdout
        assert key[:10] in listed
        assert key not in listed
        assert "laptop" in listed
        assert "valid until" in listed

    def test_more_keys_than_a_page_holds(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.embedded.keys._PAGE", 2)
        for number in range(5):
            run("create", f"key-{number}")
        names = [one["name"] for one in json.loads(run("list", "--json").stdout)]
        assert names == [f"key-{number}" for number in reversed(range(5))]

    def test_an_unknown_project_names_those_there_are(self, database: Database) -> None:
        run("create", "a", "--project", "vision")
        refused = run("list", "--project", "visoin")
        assert refused.exit_code == ExitCode.REFUSED
        assert "there is no project 'visoin'; there are: vision" in refused.stderr


class TestRevoking:
    def test_a_revoked_key_is_refused_and_stays_in_the_list(self, database: Database) -> None:
        made = json.loads(run("create", "laptop", "--json").stdout)
        assert run("revoke", made["id"]).exit_code == 0
        with pytest.raises(Unauthenticated, match="was revoked"):
            caller_of(database, made["key"])
        assert "revoked" in run("list").stdout

    def test_a_key_of_another_project_is_not_found(self, database: Database) -> None:
        made = json.loads(run("create", "theirs", "--project", "vision", "--json").stdout)
        run("create", "ours")
        refused = run("revoke", made["id"])
        assert refused.exit_code == ExitCode.REFUSED
        assert caller_of(database, made["key"]).key_id == made["id"]


class TestWhichDatabase:
    def test_the_stack_that_runs_on_the_folder(
        self, database: Database, database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layout = Layout.of(folder)
        layout.create()
        layout.write_stack_record(
            StackRecord(1, "http://127.0.0.1:1", "127.0.0.1", 1, "2026-01-01", database_url, "redis://127.0.0.1:1")
        )
        monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
        with layout.locked():
            made = run("create", "laptop", "--data-dir", str(folder))
        assert caller_of(database, made.stdout.strip()).project

    def test_no_stack_runs_on_the_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
        refused = run("list", "--data-dir", str(folder))
        assert refused.exit_code == ExitCode.USAGE
        assert f"no service runs on {folder}: start it with `foretune up`" in refused.stderr

    def test_a_database_that_was_never_migrated(self, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", empty_database_url)
        refused = run("create", "laptop")
        assert refused.exit_code == ExitCode.FAILED
        assert "run `python -m service.db.migrate`" in refused.stderr
