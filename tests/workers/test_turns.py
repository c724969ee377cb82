"""A worker shares its time between projects first, and then between a project's experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.bus.names import QUEUE_TRAIN
from service.settings import settings
from service.usecases import shifts
from tests.conftest import make_project
from workers.turns import Turns, take_turn

if TYPE_CHECKING:
    from tests.workers.conftest import Bench


class TestChoice:
    def test_projects_share_alike_however_many_experiments_they_have(self) -> None:
        work = {**{f"a{number}": "A" for number in range(50)}, "b": "B"}
        turns = Turns()
        spent = {"A": 0.0, "B": 0.0}
        for _ in range(100):
            chosen = turns.choose(work)
            assert chosen is not None
            turns.note(chosen, work[chosen], 60.0)
            spent[work[chosen]] += 60.0
        assert spent["A"] == spent["B"]

    def test_experiments_of_a_project_take_turns(self) -> None:
        work = {"a": "A", "b": "A", "c": "A"}
        turns = Turns()
        order = []
        for _ in range(6):
            chosen = turns.choose(work)
            assert chosen is not None
            order.append(chosen)
            turns.note(chosen, "A", 1.0)
        assert order == ["a", "b", "c", "a", "b", "c"]

    def test_time_counts_not_turns(self) -> None:
        work = {"long": "A", "short": "B"}
        turns = Turns()
        order = []
        for _ in range(9):
            chosen = turns.choose(work)
            assert chosen is not None
            order.append(chosen)
            turns.note(chosen, work[chosen], 60.0 if chosen == "long" else 15.0)
        assert order.count("short") == 4 * order.count("long") - 3 or order.count("short") == 7

    def test_who_comes_later_is_owed_nothing(self) -> None:
        turns = Turns()
        for _ in range(100):
            turns.choose({"a": "A"})
            turns.note("a", "A", 60.0)
        work = {"a": "A", "b": "B"}
        order = []
        for _ in range(6):
            chosen = turns.choose(work)
            assert chosen is not None
            order.append(chosen)
            turns.note(chosen, work[chosen], 60.0)
        assert sorted(order[:2]) == sorted(order[2:4]) == ["a", "b"]

    def test_no_work_is_nobodys_turn(self) -> None:
        assert Turns().choose({}) is None


class TestTakingTurns:
    def test_another_project_is_not_kept_waiting_by_many_messages(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given three experiments of one project that were announced first, the other project's is served second."""
        monkeypatch.setenv("FORETUNE_SHIFT_S", "0.000001")
        settings.cache_clear()
        mine = [bench.submit() for _ in range(3)]
        other = bench.of_project(make_project(bench.database, "others").id).submit()
        turns = Turns()
        bench.in_thread(lambda: take_turn(bench.worker("wrk_one"), mine[0], turns))
        bench.in_thread(lambda: take_turn(bench.worker("wrk_one"), mine[1], turns))
        with bench.database.transaction() as tx:
            assert set(shifts.open_work(tx)) == {*mine, other}
        assert turns.served[mine[0]] == 1
        assert turns.served[other] == 2
        assert turns.served[mine[1]] == 0

    def test_who_was_announced_and_not_served_is_announced_again(self, bench: Bench) -> None:
        first, second = bench.submit(), bench.submit()
        before = bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN]
        bench.in_thread(lambda: take_turn(bench.process, second, Turns()))
        assert bench.experiment(first).state == "COMPLETED"
        assert bench.experiment(second).state == "QUEUED"
        assert bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN] == before + 1

    def test_a_message_without_work_does_nothing(self, bench: Bench) -> None:
        take_turn(bench.process, "exp_unknown", Turns())
