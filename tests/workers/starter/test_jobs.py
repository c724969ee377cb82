"""The jobs of the starter history: real training on real variants."""

from __future__ import annotations

import dataclasses

import numpy as np

from foretune.wire.datasets import Task
from foretune.wire.histories import HistoryLine
from workers.datasets.builtin import load_builtin
from workers.starter import jobs
from workers.starter.variants import thinned, variants


def test_variants_are_tasks_of_their_own_and_always_the_same() -> None:
    wine = load_builtin("wine")
    made = {one.name: one for one in variants(wine)}
    assert len({one.content_hash for one in made.values()}) == len(made)
    assert {name: one.content_hash for name, one in made.items()} == {
        one.name: one.content_hash for one in variants(wine)
    }
    assert made["wine.half"].rows == 89
    assert made["wine.half-the-features"].features == 6
    assert made["wine.one-against-rest"].class_names[0] == "other"
    assert made["wine.column-3"].task is Task.REGRESSION
    assert made["wine.column-3"].features == 13
    moved = (made["wine.label-noise-30"].y != wine.y).mean()
    assert 0.05 < moved < 0.3
    np.testing.assert_array_equal(np.bincount(made["wine.label-noise-30"].y), np.bincount(wine.y))


def test_no_variant_where_there_would_be_nothing_left() -> None:
    names = {one.name for one in variants(load_builtin("iris"))}
    assert "iris.half-the-features" not in names
    assert "iris.half-the-classes" not in names


def test_all_jobs_of_a_network_try_the_same_first_settings() -> None:
    found = [job for job in jobs.jobs() if job.network.name == "mlp" and job.dataset.task is Task.CLASSIFICATION]
    first, second = (jobs.settings_of(job.network.space_for(job.dataset.task), job.name) for job in found[:2])
    assert first[:24] == second[:24]
    assert first[24:] != second[24:]
    for setting in first:
        found[0].network.space_for(Task.CLASSIFICATION).check(setting)


def test_a_job_becomes_a_history() -> None:
    job = next(job for job in jobs.jobs() if job.name == "mlp-iris")
    small = dataclasses.replace(job, dataset=dataclasses.replace(thinned(job.dataset, 100), name="iris"))
    line = jobs.run(small)
    history = HistoryLine.model_validate(line)
    assert history.features["rows"] == 100.0
    done = [trial for trial in history.trials if trial.state == "COMPLETED"]
    assert len(done) >= 24
    assert all(len(trial.curve) == history.max_epochs for trial in done)
    assert max(value for trial in done for value in trial.curve if value is not None) > 0.9
    assert jobs.run(small)["trials"][0]["curve"] == line["trials"][0]["curve"]  # type: ignore[index,call-overload]
