"""Checkpoints that are lost, damaged, foreign, left behind, or cannot be written: they cost time and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from foretune.errors import StorageFull, Unavailable
from foretune.states import ExperimentState
from service.artifacts import ArtifactStore
from service.settings import settings
from service.usecases import checkpoints
from workers.engine import Checkpoint, Engine, TrialSpec

if TYPE_CHECKING:
    from tests.workers.conftest import Bench

E = ExperimentState
_Store = TypeVar("_Store", bound=ArtifactStore)


class _FullStore(ArtifactStore):
    def put_bytes(self, key: str, data: bytes) -> None:
        raise StorageFull


def _like(kind: type[_Store], store: ArtifactStore) -> _Store:
    """At the same address."""
    made = kind.__new__(kind)
    made.__dict__.update(store.__dict__)
    return made


class TestRead:
    def test_a_lost_checkpoint_costs_time_alone(
        self, bench: Bench, undisturbed: list[object], artifacts: ArtifactStore
    ) -> None:
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(3))
        for key in bench.checkpoints_known():
            artifacts.delete(key)
        bench.work(experiment_id)
        assert bench.curves(experiment_id) == undisturbed

    @pytest.mark.parametrize(("damaged", "start"), [(1, 2), (2, 0)])
    def test_where_the_newest_is_damaged_the_one_before_is_gone_on_from(
        self,
        bench: Bench,
        undisturbed: list[object],
        artifacts: ArtifactStore,
        monkeypatch: pytest.MonkeyPatch,
        damaged: int,
        start: int,
    ) -> None:
        starts: list[tuple[str, int]] = []

        class WatchedEngine(Engine):
            def admit(self, spec: TrialSpec, checkpoint: Checkpoint | None = None) -> None:
                super().admit(spec, checkpoint)
                starts.append((spec.trial_id, checkpoint.position.epoch if checkpoint else 0))

        monkeypatch.setattr("workers.shift.Engine", WatchedEngine)
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(3))
        (trial,) = bench.trials(experiment_id)
        assert len(bench.checkpoints_known()) == 2
        for key in sorted(bench.checkpoints_known(), reverse=True)[:damaged]:
            artifacts.put_bytes(key, artifacts.read_bytes(key)[:-100])
        bench.work(experiment_id)
        assert starts[:2] == [(trial.id, 0), (trial.id, start)]
        assert bench.curves(experiment_id) == undisturbed

    def test_a_damaged_checkpoint_costs_time_alone(
        self, bench: Bench, undisturbed: list[object], artifacts: ArtifactStore
    ) -> None:
        experiment_id = bench.submit()
        bench.work(experiment_id, bench.stopped_at(3))
        for key in bench.checkpoints_known():
            artifacts.put_bytes(key, artifacts.read_bytes(key)[:-100])
        bench.work(experiment_id)
        assert bench.curves(experiment_id) == undisturbed

    def test_a_checkpoint_of_another_network_costs_time_alone(
        self, bench: Bench, undisturbed: list[object], artifacts: ArtifactStore
    ) -> None:
        """As when the network was changed since: the trial starts anew, and no epoch is told twice."""
        experiment_id, other = bench.submit(), bench.submit(fixed={"width": 24, "depth": 2, "batch_size": 256})
        bench.work(other, bench.stopped_at(3, "wrk_other"))
        foreign = bench.checkpoints_known()
        bench.work(experiment_id, bench.stopped_at(3))
        for key in bench.checkpoints_known() - foreign:
            artifacts.put_bytes(key, artifacts.read_bytes(min(foreign)))
        bench.work(experiment_id)
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert bench.curves(experiment_id) == undisturbed


class TestWritten:
    def test_a_full_disk_costs_checkpoints_alone(self, bench: Bench, undisturbed: list[object]) -> None:
        experiment_id = bench.submit()
        worker = bench.worker("wrk_full")
        bench.work(experiment_id, replace(worker, artifacts=_like(_FullStore, worker.artifacts)))
        assert bench.experiment(experiment_id).state is E.COMPLETED
        assert bench.curves(experiment_id) == undisturbed
        assert not any(experiment_id in key for key in bench.checkpoints_known())

    def test_where_two_do_not_fit_the_older_makes_room(
        self, bench: Bench, artifacts: ArtifactStore, checkpoint_files: Callable[[], set[str]]
    ) -> None:
        class TightStore(ArtifactStore):
            def put_bytes(self, key: str, data: bytes) -> None:
                if len(checkpoint_files()) >= 2:
                    raise StorageFull
                super().put_bytes(key, data)

        experiment_id = bench.submit()
        worker = bench.stopped_at(3)
        bench.work(experiment_id, replace(worker, artifacts=_like(TightStore, artifacts)))
        (trial,) = bench.trials(experiment_id)
        (newest, before) = sorted(bench.checkpoints_known(), reverse=True)
        assert Checkpoint.from_bytes(artifacts.read_bytes(newest)).position.epoch == trial.epochs == 3
        assert Checkpoint.from_bytes(artifacts.read_bytes(before)).position.epoch == 2

    def test_what_cannot_be_kept_is_not_handed_back(
        self, bench: Bench, undisturbed: list[object], artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Others wait for a turn, but in every turn the same epochs would be trained again."""
        monkeypatch.setenv("FORETUNE_SHIFT_S", "0.000001")
        settings.cache_clear()
        monkeypatch.setattr(bench.bus, "waiting_to_train", lambda: 1)
        experiment_id = bench.submit()
        full = replace(bench.worker("wrk_full"), artifacts=_like(_FullStore, artifacts))
        for _ in range(3):
            bench.work(experiment_id, full)
        assert bench.curves(experiment_id) == undisturbed
        assert [trial.attempts for trial in bench.trials(experiment_id)] == [1, 1, 1]


class TestTidied:
    def test_what_a_killed_worker_left_is_tidied_after_the_end(
        self,
        bench: Bench,
        artifacts: ArtifactStore,
        checkpoint_files: Callable[[], set[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Given checkpoints that nothing refers to, they go once no late writer can come, and no other does."""
        experiment_id, running = bench.submit(), bench.submit()
        bench.work(running, bench.stopped_at(2))
        (trial, *_) = bench.trials(running)
        for one in (experiment_id, running):
            artifacts.put_bytes(f"checkpoints/{one}/{trial.id}/7-77", b"nobody knows of it")
        bench.work(experiment_id)
        before = checkpoint_files()
        assert checkpoints.tidy_finished(bench.database, artifacts) == 0
        assert checkpoint_files() == before
        monkeypatch.setenv("FORETUNE_WORKER_LEASE_S", "0.000001")
        settings.cache_clear()
        assert checkpoints.tidy_finished(bench.database, artifacts) == 1
        assert before - checkpoint_files() == {f"checkpoints/{experiment_id}/{trial.id}/7-77"}
        assert bench.checkpoints_known() <= checkpoint_files()
        assert checkpoints.tidy_finished(bench.database, artifacts) == 0

    def test_a_store_that_is_away_is_tidied_later(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        class AwayStore(ArtifactStore):
            def delete_all_but(self, folder: str, kept: object) -> int:
                raise Unavailable("the store is away")

        away = _like(AwayStore, bench.process.artifacts)
        bench.work(bench.submit())
        monkeypatch.setenv("FORETUNE_WORKER_LEASE_S", "0.000001")
        settings.cache_clear()
        assert checkpoints.tidy_finished(bench.database, away) == 0
        assert checkpoints.tidy_finished(bench.database, bench.process.artifacts) == 1
