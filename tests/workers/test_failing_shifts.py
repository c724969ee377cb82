"""Shifts that fail by errors of our own: again and again, once in a while, or for the histories alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from foretune.json_types import JsonValue
from foretune.states import ExperimentState
from service.db.tables import experiments as experiment_table
from service.db.tables import histories as history_table
from service.usecases import histories, shifts
from tests.workers.conftest import SMALL

if TYPE_CHECKING:
    from tests.workers.conftest import Bench

E = ExperimentState

UNREADABLE: list[JsonValue] = [{"name": "x", "type": "of another version"}]


def set_fixed(bench: Bench, experiment_id: str, fixed: JsonValue) -> None:
    """Where `fixed` is no object, no shift gets anywhere, as by an error of our own."""
    statement = update(experiment_table).where(experiment_table.c.id == experiment_id)
    with bench.database.transaction() as tx:
        tx.connection.execute(statement.values(fixed=fixed))


def test_what_fails_every_shift_ends_with_a_reason(bench: Bench) -> None:
    experiment_id = bench.submit()
    set_fixed(bench, experiment_id, "spoilt")
    for _ in range(shifts.MAX_FAILED_SHIFTS):
        with pytest.raises((TypeError, ValueError), match=r"dictionary|mapping"):
            bench.work(experiment_id)
    set_fixed(bench, experiment_id, SMALL["fixed"])
    experiment = bench.experiment(experiment_id)
    assert experiment.state is E.FAILED
    assert (experiment.reason or "").startswith(
        f"workers failed on it {shifts.MAX_FAILED_SHIFTS} times in a row, the last time by ValueError: "
    )


def test_an_epoch_forgives_the_shifts_that_failed_before(bench: Bench, undisturbed: list[object]) -> None:
    experiment_id = bench.submit()
    for _ in range(2):
        set_fixed(bench, experiment_id, "spoilt")
        for _ in range(shifts.MAX_FAILED_SHIFTS - 1):
            with pytest.raises((TypeError, ValueError), match=r"dictionary|mapping"):
                bench.work(experiment_id)
        set_fixed(bench, experiment_id, SMALL["fixed"])
        bench.work(experiment_id, bench.stopped_at(1))
    bench.work(experiment_id)
    assert bench.experiment(experiment_id).state is E.COMPLETED
    assert bench.curves(experiment_id) == undisturbed


def test_histories_that_cannot_be_read_cost_what_they_know_and_no_more(bench: Bench) -> None:
    first = bench.submit(budget={"max_trials": 3, "max_epochs": 2}, proposer="auto")
    bench.work(first)
    histories.compact_finished(bench.database)
    with bench.database.transaction() as tx:
        assert tx.connection.execute(update(history_table).values(space=UNREADABLE)).rowcount == 1
    second = bench.submit(budget={"max_trials": 3, "max_epochs": 2}, proposer="auto")
    bench.work(second)
    assert bench.experiment(second).state is E.COMPLETED
