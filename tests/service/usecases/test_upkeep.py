"""Upkeep: what the dead held is freed, what was lost is rung again, what is over ends."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Table, func, insert, select, update

from foretune.events import EventType
from foretune.states import ExperimentState, TrialState
from service.bus.names import QUEUE_DATASETS, QUEUE_TRAIN
from service.db import upkeep as upkeep_rows
from service.db.tables import datasets as dataset_table
from service.db.tables import idempotency_keys, workers
from service.usecases import datasets, experiments, upkeep
from service.usecases.datasets import Upload

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World


def sweep(world: World) -> None:
    upkeep.sweep(world.database, world.bus)


def waiting(world: World, queue: str) -> int:
    return world.bus.queue_lengths((queue,))[queue]


class TestLeases:
    def test_a_silent_client_loses_its_trial_and_the_log_says_so(self, world: World) -> None:
        experiment = world.submit()
        lost, kept = world.ask(experiment.id, 2)
        world.let_lease_run_out(lost.id)
        sweep(world)
        told = world.trial(lost.id)
        assert (told.state, told.reason, told.attempts) == (TrialState.QUEUED, "its lease ran out", 1)
        assert world.trial(kept.id).state is TrialState.RUNNING
        (event,) = [one for one in world.events(experiment.id) if one.type is EventType.WORKER_LOST]
        assert event.data == {"trial": lost.id, "number": 1, "worker": "client", "attempts": 1}

    def test_a_lease_that_lasts_is_left_alone(self, world: World) -> None:
        experiment = world.submit()
        world.ask(experiment.id)
        before = world.experiment(experiment.id).last_event
        sweep(world)
        assert world.experiment(experiment.id).last_event == before

    def test_a_trial_of_a_paused_experiment_is_freed_too(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        with world.database.transaction() as tx:
            experiments.pause(tx, world.bus, world.project, experiment.id)
        world.let_lease_run_out(trial.id)
        sweep(world)
        assert world.trial(trial.id).state is TrialState.QUEUED
        assert world.experiment(experiment.id).state is ExperimentState.PAUSED

    def test_a_trial_that_loses_every_client_fails(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 1, "max_epochs": 100})
        for _ in range(upkeep.MAX_ATTEMPTS):
            (trial,) = world.ask(experiment.id)
            world.let_lease_run_out(trial.id)
            sweep(world)
        told = world.trial(trial.id)
        assert (told.state, told.reason) == (TrialState.FAILED, "its client was lost 8 times in a row")
        assert world.experiment(experiment.id).state is ExperimentState.FAILED

    def test_an_epoch_in_between_begins_a_new_count(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 1, "max_epochs": 100})
        for epoch in range(1, 2 * upkeep.MAX_ATTEMPTS):
            (trial,) = world.ask(experiment.id)
            world.measure(trial.id, trial.lease.token, {epoch: 0.5})
            world.let_lease_run_out(trial.id)
            sweep(world)
        assert world.trial(trial.id).state is TrialState.QUEUED


class TestRinging:
    @pytest.fixture
    def silent(self, world: World, published: None) -> str:
        """A managed experiment whose messages were lost."""
        experiment = world.submit_managed()
        world.lose_messages()
        return experiment.id

    def test_nobody_is_rung_for_twice_in_a_moment(self, world: World, silent: str) -> None:
        sweep(world)
        assert waiting(world, QUEUE_TRAIN) == 0

    def test_a_lost_message_is_rung_again(self, world: World, silent: str) -> None:
        world.let_time_pass(silent, 60)
        sweep(world)
        assert waiting(world, QUEUE_TRAIN) == 1
        sweep(world)
        assert waiting(world, QUEUE_TRAIN) == 1

    def test_messages_do_not_pile_up_while_every_worker_is_busy(self, world: World, published: None) -> None:
        """Given nobody takes any for a while, there is one for each experiment, and one that is lost comes again."""
        made = [world.submit_managed().id for _ in range(3)]
        world.lose_messages()
        for _ in range(4):
            for experiment_id in made:
                world.let_time_pass(experiment_id, 60)
            sweep(world)
            assert waiting(world, QUEUE_TRAIN) == 3
        world.lose_messages()
        world.let_time_pass(made[0], 60)
        sweep(world)
        assert waiting(world, QUEUE_TRAIN) == 1

    @pytest.mark.parametrize("verb", ["pause", "cancel"])
    def test_what_does_not_run_is_not_rung_for(self, world: World, silent: str, verb: str) -> None:
        with world.database.transaction() as tx:
            getattr(experiments, verb)(tx, world.bus, world.project, silent)
        world.let_time_pass(silent, 60)
        sweep(world)
        assert waiting(world, QUEUE_TRAIN) == 0

    def test_external_ones_are_never_rung_for_and_take_nobodys_place(self, world: World, silent: str) -> None:
        """Given more open experiments than one round looks at, the managed ones are among them."""
        world.submit()
        world.let_time_pass(silent, 60)
        with world.database.transaction() as tx:
            assert upkeep_rows.open_experiments(tx, timedelta(seconds=5), limit=1) == [silent]

    def test_rounds_reach_everybody_in_turn(self, world: World, published: None) -> None:
        """Given more managed experiments than one round looks at, each gets its turn."""
        made = {world.submit_managed().id for _ in range(4)}
        for experiment_id in made:
            world.let_time_pass(experiment_id, 60)
        seen: list[str] = []
        for _ in range(2):
            with world.database.transaction() as tx:
                chosen = upkeep_rows.open_experiments(tx, timedelta(seconds=5), limit=2)
            seen += chosen
            for experiment_id in chosen:
                upkeep._wake(world.database, world.bus, experiment_id, ring=True)
        assert set(seen) == made


class TestEnding:
    def test_time_that_is_over_ends_an_experiment_that_nobody_asks(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 4, "max_seconds": 60})
        (trial,) = world.ask(experiment.id)
        world.let_time_pass(experiment.id, 120)
        sweep(world)
        ended = world.experiment(experiment.id)
        assert (ended.state, ended.reason) == (ExperimentState.COMPLETED, "the budget of 60 seconds is spent")
        assert world.trial(trial.id).state is TrialState.STOPPED


class TestTidying:
    def test_an_upload_that_nobody_parsed_is_rung_for(self, world: World) -> None:
        upload = Upload("dst_1", "mine", "mine.csv", None, None, "00", 5)
        with world.database.transaction() as tx:
            datasets.register_upload(tx, world.project, upload)
        world.lose_messages()
        sweep(world)
        assert waiting(world, QUEUE_DATASETS) == 0
        age(world, dataset_table, "created_at", minutes=1)
        sweep(world)
        assert waiting(world, QUEUE_DATASETS) == 1

    def test_a_failed_upload_is_forgotten_after_a_while(self, world: World) -> None:
        upload = Upload("dst_1", "mine", "mine.csv", None, None, "00", 5)
        with world.database.transaction() as tx:
            datasets.register_upload(tx, world.project, upload)
            datasets.fail_parsing(tx, world.bus, "dst_1", "invalid_dataset", "no")
        sweep(world)
        assert count(world, dataset_table) == 1
        age(world, dataset_table, "created_at", minutes=120)
        sweep(world)
        assert count(world, dataset_table) == 0

    def test_old_keys_and_workers_go_and_young_ones_stay(self, world: World) -> None:
        with world.database.transaction() as tx:
            for name in ("old", "young"):
                row = {"project_id": world.project, "key": name, "fingerprint": "f", "status": 200, "body": ""}
                tx.connection.execute(insert(idempotency_keys).values(row))
                tx.connection.execute(insert(workers).values(id=name, kind="train", host="h", pid=1))
            for table, column, name in (
                (idempotency_keys, "created_at", "key"),
                (workers, "seen_at", "id"),
            ):
                moved = {column: func.now() - timedelta(hours=25)}
                tx.connection.execute(update(table).where(table.c[name] == "old").values(moved))
        sweep(world)
        assert (count(world, idempotency_keys), count(world, workers)) == (1, 1)


def age(world: World, table: Table, column: str, minutes: float) -> None:
    with world.database.transaction() as tx:
        tx.connection.execute(update(table).values({column: func.now() - timedelta(minutes=minutes)}))


def count(world: World, table: Table) -> int:
    with world.database.transaction() as tx:
        return int(tx.connection.execute(select(func.count()).select_from(table)).scalar_one())
