"""Transactions: what is durable when, and what a database that goes away looks like."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from foretune.errors import NotFound, Unavailable
from service.db.session import Database, Transaction
from service.db.tables import networks, projects


def add(tx: Transaction, name: str) -> None:
    tx.connection.execute(insert(projects).values(id=name, name=name))


def names(database: Database) -> list[str]:
    with database.reading() as tx:
        return list(tx.connection.execute(select(projects.c.name).order_by(projects.c.name)).scalars())


class TestCommit:
    def test_a_block_that_ends_well_is_kept(self, database: Database) -> None:
        with database.transaction() as tx:
            add(tx, "a")
            assert names(database) == []
        assert names(database) == ["a"]

    def test_one_that_raises_leaves_nothing(self, database: Database) -> None:
        def fail() -> None:
            with database.transaction() as tx:
                add(tx, "a")
                raise NotFound

        with pytest.raises(NotFound):
            fail()
        assert names(database) == []

    def test_a_broken_rule_is_our_bug_and_stays_one(self, database: Database) -> None:
        def twice() -> None:
            with database.transaction() as tx:
                add(tx, "a")
                add(tx, "a")

        with pytest.raises(IntegrityError):
            twice()
        assert names(database) == []


class TestDoorbells:
    def test_they_ring_when_it_is_durable_and_not_before(self, database: Database) -> None:
        heard: list[list[str]] = []
        with database.transaction() as tx:
            tx.after_commit(lambda: heard.append(names(database)))
            add(tx, "a")
            assert heard == []
        assert heard == [["a"]]

    def test_after_a_failure_they_are_silent(self, database: Database) -> None:
        heard: list[str] = []

        def fail() -> None:
            with database.transaction() as tx:
                tx.after_commit(lambda: heard.append("rang"))
                raise NotFound

        with pytest.raises(NotFound):
            fail()
        assert heard == []

    def test_the_same_one_rings_once(self, database: Database) -> None:
        heard: list[str] = []
        with database.transaction() as tx:
            for number in range(3):
                tx.after_commit(lambda: heard.append("shift"), once=("shift", "exp_1"))
                tx.after_commit(lambda number=number: heard.append(str(number)))  # type: ignore[misc]
        assert sorted(heard) == ["0", "1", "2", "shift"]

    def test_one_that_fails_spoils_neither_the_others_nor_the_answer(self, database: Database) -> None:
        heard: list[str] = []

        def broken() -> None:
            raise OSError("no broker")

        with database.transaction() as tx:
            add(tx, "a")
            tx.after_commit(broken)
            tx.after_commit(lambda: heard.append("rang"))
        assert heard == ["rang"]
        assert names(database) == ["a"]


class TestAway:
    @pytest.fixture
    def other(self, database_url: str) -> Iterator[Database]:
        made = Database(database_url, pool_size=1)
        yield made
        made.close()

    def test_nobody_there(self) -> None:
        database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
        for block in (database.transaction, database.reading):
            with pytest.raises(Unavailable, match="the database does not answer") as caught, block():
                pass
            assert caught.value.code == "database_away"
        database.close()

    def test_gone_in_the_middle_and_back_at_once(self, database: Database, other: Database) -> None:
        """Given Postgres ends our connections, the call under way fails as such, and the next one works."""
        with database.transaction() as tx:
            add(tx, "a")

        def interrupted() -> None:
            with database.transaction() as tx:
                add(tx, "b")
                pid = tx.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                with other.transaction() as killer:
                    killer.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                add(tx, "c")

        with pytest.raises(Unavailable):
            interrupted()
        assert names(database) == ["a"]

    @pytest.mark.parametrize("hot", [True, False])
    def test_a_client_that_hangs_in_the_middle_holds_no_lock_for_ever(self, database: Database, hot: bool) -> None:
        """Given a process stands still within a transaction, Postgres ends it; waking, it is told so."""

        def hung() -> None:
            with database.transaction() as tx:
                add(tx, "a")
                tx.connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
                time.sleep(0.3)
                if hot:
                    tx.rows(b"SELECT 1", {})
                else:
                    tx.connection.execute(text("SELECT 1"))

        with pytest.raises(Unavailable) as caught:
            hung()
        assert caught.value.code == "database_away"
        assert names(database) == []

    def test_every_connection_has_such_a_limit(self, database: Database) -> None:
        with database.reading() as tx:
            limit = tx.connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
        assert limit == "15s"

    def test_idle_connections_that_died_are_replaced(self, database: Database, other: Database) -> None:
        assert names(database) == []
        with other.transaction() as killer:
            killer.connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        # One call may find it out; the one after it must not.
        with suppress(Unavailable):
            names(database)
        assert names(database) == []

    def test_more_callers_than_connections_wait_and_then_give_up(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given every connection is taken for longer than a call waits, that is said, and passes."""
        database = Database(database_url, pool_size=1)
        monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
        with database.transaction() as one, database.transaction() as other:
            for tx in (one, other):
                tx.connection.execute(text("SELECT 1"))
            with pytest.raises(Unavailable, match="all database connections are taken") as caught:
                names(database)
            assert caught.value.code == "database_busy"
        assert names(database) == []
        database.close()


class TestValues:
    @pytest.mark.parametrize("number", [2**63, -(2**63), 2**53 + 1, 0.1, 5e-324, 1e308])
    def test_numbers_in_json_come_back_as_they_were(self, database: Database, number: float) -> None:
        with database.transaction() as tx:
            tx.connection.execute(insert(networks).values(name="n", description={"number": number}))
        with database.reading() as tx:
            kept = tx.connection.execute(select(networks.c.description)).scalar_one()
        assert kept == {"number": number}

    def test_reading_takes_no_snapshot_across_statements(self, database: Database) -> None:
        with database.reading() as tx:
            count = select(func.count()).select_from(projects)
            assert tx.connection.execute(count).scalar_one() == 0
            with database.transaction() as writer:
                add(writer, "a")
            assert tx.connection.execute(count).scalar_one() == 1

    def test_many_threads_share_the_pool(self, database: Database) -> None:
        def work(number: int) -> None:
            with database.transaction() as tx:
                add(tx, f"{number:02}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names(database)) == 24
