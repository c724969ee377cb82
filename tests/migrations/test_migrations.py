"""Every migration, up and down, on an empty and on a filled database; and the one command that runs them."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from queue import SimpleQueue

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, func, select, text
from sqlalchemy.pool import NullPool

from foretune.errors import Unavailable
from service.db import migrate
from service.db.migrate import SchemaBehind, SchemaTooNew, known_revisions
from service.db.tables import metadata

REVISIONS = known_revisions()
COMPARED = {"compare_type": True, "compare_server_default": True}
VALUES: dict[type, object] = {
    str: "text",
    int: 1,
    float: 0.5,
    bool: True,
    bytes: b"bytes",
    datetime: datetime(2026, 1, 2, tzinfo=UTC),
    object: [],  # JSON
}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    made = create_engine(empty_database_url, poolclass=NullPool)
    yield made
    made.dispose()


def move(engine: Engine, revision: str, *, down: bool = False) -> None:
    config = migrate.alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)


def tables(connection: Connection) -> list[Table]:
    """The tables that are there, parents first."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def fill(engine: Engine) -> None:
    """One row in every table that is there, with a value in every column."""
    with engine.begin() as connection:
        for table in tables(connection):
            row = {}
            for column in table.columns:
                parent = next(iter(column.foreign_keys), None)
                value = VALUES[column.type.python_type]
                row[column.name] = connection.execute(select(parent.column)).scalar_one() if parent else value
            connection.execute(table.insert().values(row))


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables(connection)
        }


class TestRevisions:
    def test_they_form_one_line_in_the_order_of_their_names(self) -> None:
        script = ScriptDirectory.from_config(migrate.alembic_config())
        assert script.get_heads() == [REVISIONS[-1]]
        walked = [revision.revision for revision in script.walk_revisions()]
        assert tuple(reversed(walked)) == REVISIONS

    def test_the_migrated_schema_is_what_the_code_reads(self, engine: Engine) -> None:
        move(engine, "head")
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection, opts=COMPARED), metadata) == []

    def test_a_difference_would_be_found(self, engine: Engine) -> None:
        """The comparison above is no comparison of nothing with nothing."""
        move(engine, "head")
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE trials DROP COLUMN reason"))
        with engine.connect() as connection:
            (difference,) = compare_metadata(MigrationContext.configure(connection, opts=COMPARED), metadata)
        assert difference[0] == "add_column"

    def test_the_code_brings_its_tables_itself(self, engine: Engine) -> None:
        """Given the tables as the code has them, the migrations make the same."""
        with engine.begin() as connection:
            metadata.create_all(connection)
            made = {table.name: sorted(table.columns.keys()) for table in tables(connection)}
            metadata.drop_all(connection)
        move(engine, "head")
        with engine.connect() as connection:
            assert {table.name: sorted(table.columns.keys()) for table in tables(connection)} == made

    @pytest.mark.parametrize("revision", REVISIONS)
    def test_up_down_and_up_again_keep_what_was_there(self, engine: Engine, revision: str) -> None:
        """Given a database filled at an older revision, its rows survive the way to the newest and back."""
        move(engine, revision)
        fill(engine)
        before = counts(engine)
        assert before
        assert set(before.values()) == {1}
        for target, down in (("head", False), (revision, True), ("head", False)):
            move(engine, target, down=down)
            assert counts(engine).items() >= before.items()

    def test_all_the_way_down_leaves_nothing(self, engine: Engine) -> None:
        move(engine, "head")
        fill(engine)
        move(engine, "base", down=True)
        assert counts(engine) == {}
        move(engine, "head")
        assert set(counts(engine).values()) == {0}

    def test_the_sql_can_be_read_beforehand(self) -> None:
        written = io.StringIO()
        config = migrate.alembic_config()
        config.output_buffer = written
        command.upgrade(config, "head", sql=True)
        assert "CREATE TABLE experiments" in written.getvalue()


class TestUpgrade:
    def test_it_is_done_once(self, empty_database_url: str) -> None:
        migrate.upgrade(empty_database_url)
        migrate.check(empty_database_url)
        migrate.upgrade(empty_database_url)
        migrate.check(empty_database_url)

    def test_several_at_once_take_turns(self, empty_database_url: str) -> None:
        """Given three API processes start together, each finds the schema ready."""
        with ThreadPoolExecutor(3) as threads:
            # One process has one Alembic: processes of their own, as in production.
            runs = [threads.submit(run_command, empty_database_url) for _ in range(3)]
        assert [run.result() for run in runs] == [(0, f"the database is at revision {migrate.head()}\n", "")] * 3

    def test_a_schema_that_is_behind_is_refused_by_check(self, empty_database_url: str) -> None:
        with pytest.raises(SchemaBehind, match=f"at revision none and this code needs {migrate.head()}"):
            migrate.check(empty_database_url)

    def test_a_schema_of_tomorrow_is_left_alone(self, engine: Engine, empty_database_url: str) -> None:
        move(engine, "head")
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        for act in (migrate.upgrade, migrate.check):
            with pytest.raises(SchemaTooNew, match="revision 9999, which this version of Foretune does not know"):
                act(empty_database_url)
        status, _, complaint = run_command(empty_database_url)
        assert status == 1
        assert complaint.startswith("error (schema_too_new): ")
        assert complaint.count("\n") == 1

    def test_a_server_that_is_away_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(migrate, "_CONNECT_TRIES", 1)
        with pytest.raises(Unavailable, match="the database does not answer"):
            migrate.upgrade("postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    def test_a_current_schema_costs_no_alembic(self, database_url: str) -> None:
        program = (
            "import sys\nfrom service.db import migrate\nmigrate.upgrade(sys.argv[1])\n"
            "print(sorted({'alembic', 'sqlalchemy'} & set(sys.modules)))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program, database_url], capture_output=True, text=True, check=True, timeout=60
        )
        assert ran.stdout.strip() == "[]"


def run_command(database_url: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "service.db.migrate"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"DATABASE_URL": database_url, "PATH": ""},
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_a_worker_waits_for_whoever_migrates(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "_WARN_AFTER_S", 0.0)
    said: SimpleQueue[str] = SimpleQueue()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(migrate.wait_until_current, empty_database_url, said.put)
        # it says what it waits for, once, and goes on as soon as the schema is there
        assert "run `python -m service.db.migrate`" in said.get(timeout=30)
        assert not waiting.done()
        migrate.upgrade(empty_database_url)
        waiting.result(timeout=30)
    assert said.empty()
