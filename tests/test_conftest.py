"""What the tests rest on is there: a database each, and no way out of this machine."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import text

from service.bus import Bus
from service.db.session import Database
from service.settings import settings


class TestNetwork:
    def test_other_machines_are_out_of_reach(self) -> None:
        with socket.socket() as endpoint, pytest.raises(RuntimeError, match="this machine only"):
            endpoint.connect(("192.0.2.1", 80))

    def test_this_machine_is_not(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as endpoint:
            endpoint.connect(server.getsockname())


class TestDatabase:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_each_test_begins_with_an_empty_one(self, database: Database, turn: int) -> None:
        with database.transaction() as tx:
            assert tx.connection.execute(text("SELECT count(*) FROM projects")).scalar_one() == 0
            tx.connection.execute(text("INSERT INTO projects (id, name) VALUES ('p', 'left behind')"))

    def test_the_settings_name_it(self, environment: None, database_url: str) -> None:
        assert settings().database_url == database_url

    @pytest.mark.parametrize("turn", [1, 2])
    def test_each_test_begins_with_an_empty_queue(self, bus: Bus, turn: int) -> None:
        assert bus.calls_waiting() == 0
        bus.notify("left behind", {})
