"""Several workers on one experiment: equal shares of what may run, and nothing is left for those that do not come."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from foretune.events import EventType
from foretune.json_types import JsonObject
from foretune.states import ExperimentState
from service.bus.names import QUEUE_TRAIN
from service.db import workers as worker_rows
from service.db.tables import trials as trial_table
from service.usecases import shifts
from service.usecases.trials import Proposed
from workers import shift

if TYPE_CHECKING:
    from tests.workers.conftest import Bench

E = ExperimentState
FOUR: JsonObject = {"parallelism": 4, "budget": {"max_trials": 8, "max_epochs": 4, "max_total_epochs": 1000}}


def sign(bench: Bench, *names: str) -> None:
    """These train workers are there."""
    with bench.database.transaction() as tx:
        for name in names:
            worker_rows.seen(tx, name, kind="train", host=socket.gethostname(), pid=1, device="cpu")


def running(bench: Bench, experiment_id: str) -> Counter[str]:
    """How many trials each worker runs."""
    query = select(trial_table.c.worker).where(
        trial_table.c.experiment_id == experiment_id, trial_table.c.state == "RUNNING"
    )
    with bench.database.transaction() as tx:
        return Counter(tx.connection.execute(query).scalars())


def most_at_once(bench: Bench, experiment_id: str) -> int:
    now, most = 0, 0
    for event in bench.events(experiment_id):
        if event.type is EventType.TRIAL_CREATED or event.data.get("state") == "RUNNING":
            now += event.type is not EventType.EXPERIMENT_STATE
        elif event.type is EventType.TRIAL_STATE:
            now -= 1
        most = max(most, now)
    return most


class TestShares:
    def test_the_first_leaves_half_to_one_that_is_idle(self, bench: Bench) -> None:
        """Given parallelism 4 and an idle worker, the first takes two trials; the other comes, and both work."""
        experiment_id = bench.submit(**FOUR)
        seen: list[Counter[str]] = []
        second = threading.Thread(target=bench.work, args=(experiment_id, bench.worker("wrk_second")))

        def look() -> None:
            seen.append(running(bench, experiment_id))
            second.start()

        sign(bench, "wrk_first", "wrk_second")
        bench.work(experiment_id, bench.worker("wrk_first", at={1: look}))
        second.join()
        bench.work(experiment_id)
        assert seen == [Counter(wrk_first=2)]
        assert bench.experiment(experiment_id).state is E.COMPLETED
        query = select(trial_table.c.worker).distinct().where(trial_table.c.experiment_id == experiment_id)
        with bench.database.transaction() as tx:
            assert {"wrk_first", "wrk_second"} <= set(tx.connection.execute(query).scalars())
        assert most_at_once(bench, experiment_id) <= 4

    def test_what_nobody_takes_is_taken_by_the_first(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Given an idle worker that never comes, all four slots are used after a moment."""
        monkeypatch.setattr(shift, "_LEAVE_S", 0.0)
        monkeypatch.setattr(shift, "_RETRY_S", 0.0)
        experiment_id = bench.submit(**FOUR)
        sign(bench, "wrk_first", "wrk_gone")
        bench.work(experiment_id, bench.worker("wrk_first"))
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert most_at_once(bench, experiment_id) == 4

    def test_one_that_runs_trials_elsewhere_is_not_waited_for(self, bench: Bench) -> None:
        elsewhere, experiment_id = bench.submit(**FOUR), bench.submit(**FOUR)
        with bench.database.transaction() as tx:
            assert shifts.claim(tx, bench.bus, elsewhere, "wrk_busy", 1) is not None
            proposed = Proposed({"learning_rate": 0.01, "dropout": 0.1}, "quasirandom", None, {"index": 0})
            assert shifts.start(tx, bench.bus, elsewhere, "wrk_busy", [proposed])
        sign(bench, "wrk_first", "wrk_busy")
        with bench.database.transaction() as tx:
            claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_first", 8, leave=True)
        assert claim is not None
        assert (claim.open_slots, claim.left_over) == (4, False)

    @pytest.mark.parametrize(("idle", "share"), [(0, 4), (1, 2), (2, 2), (3, 1), (9, 1)])
    def test_shares_are_equal_and_at_least_one(self, bench: Bench, idle: int, share: int) -> None:
        experiment_id = bench.submit(**FOUR)
        sign(bench, "wrk_first", *(f"wrk_{number}" for number in range(idle)))
        waiting = bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN]
        with bench.database.transaction() as tx:
            claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_first", 8, leave=True)
        assert claim is not None
        assert (claim.open_slots, claim.left_over) == (share, share < 4)
        rung = bench.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN] - waiting
        assert rung == min(idle, 4 - share), "as many are told as can do something"

    def test_the_last_trials_are_shared_too(self, bench: Bench) -> None:
        experiment_id = bench.submit(parallelism=8, budget={"max_trials": 2, "max_epochs": 4})
        sign(bench, "wrk_first", "wrk_second")
        with bench.database.transaction() as tx:
            claim = shifts.claim(tx, bench.bus, experiment_id, "wrk_first", 8, leave=True)
        assert claim is not None
        assert (claim.open_slots, claim.left_over) == (1, True)


class TestSideBySide:
    def test_two_shifts_never_exceed_the_parallelism(self, bench: Bench) -> None:
        """Given two workers on one experiment of parallelism 2, at most two trials ever run, and none twice."""
        experiment_id = bench.submit(parallelism=2, budget={"max_trials": 6, "max_epochs": 4})
        first = threading.Thread(target=bench.work, args=(experiment_id, bench.worker("wrk_first")))
        second = threading.Thread(target=bench.work, args=(experiment_id, bench.worker("wrk_second")))
        for thread in (first, second):
            thread.start()
        for thread in (first, second):
            thread.join()
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.COMPLETED
        alone = bench.submit(parallelism=1, budget={"max_trials": 6, "max_epochs": 4})
        bench.work(alone)
        assert bench.curves(experiment_id) == bench.curves(alone)
        assert most_at_once(bench, experiment_id) == 2
