"""The starter history that ships: readable, whole, and nobody's own."""

from __future__ import annotations

import gzip
import math

import orjson
import pytest

from foretune.metrics import Goal
from foretune.wire.histories import HistoryLine
from metalearner import Task
from service.settings import settings
from workers.networks import networks
from workers.priors import starter_for, weighed
from workers.starter import shelf


def test_what_ships_are_histories_that_the_service_would_take() -> None:
    lines = gzip.decompress(shelf.PACKED.read_bytes()).splitlines()
    assert len(lines) >= 50
    assert shelf.PACKED.stat().st_size < 4 * 2**20
    for line in lines:
        history = HistoryLine.model_validate(orjson.loads(line))
        assert history.network in networks()
        assert len(history.trials) == 32


def test_read_they_say_what_was_measured() -> None:
    histories = shelf.starter_histories()
    assert len({one.reference for one in histories}) == len(histories)
    assert {one.task.network for one in histories} == {"mlp", "cnn", "gru", "transformer"}
    for history in histories:
        assert history.reference.startswith(shelf.PREFIX)
        known = [value for value in history.values if value is not None]
        assert known
        assert all(math.isfinite(value) for value in known)
        assert all(len(history.columns[one.name]) == len(history.values) for one in history.space.parameters)
        if history.task.goal is Goal.MAXIMIZE:
            assert history.best is not None
            assert 0.0 < history.best <= 1.0


def test_the_best_value_of_a_trial_counts_and_a_diverged_one_has_none() -> None:
    trial = {"hyperparameters": {"lr": 0.1}, "curve": [0.5, 0.8, 0.7], "seconds": [1, 1, 1], "state": "COMPLETED"}
    line = {
        "name": "mlp-x",
        "network": "mlp",
        "space": [{"name": "lr", "type": "float", "low": 0.01, "high": 1.0, "log": True}],
        "metric": {"name": "val_accuracy", "goal": "maximize"},
        "max_epochs": 3,
        "features": {"rows": 10.0},
        "trials": [trial, {**trial, "state": "INFEASIBLE"}],
    }
    packed = shelf.pack([orjson.dumps(line)])
    assert packed == shelf.pack([orjson.dumps(line)])
    read = shelf.history_of(orjson.loads(gzip.decompress(packed)))
    assert list(read.values) == [0.8, None]
    assert list(read.columns["lr"]) == [0.1, 0.1]


class TestUse:
    @pytest.fixture(autouse=True)
    def _on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETUNE_STARTER_HISTORY", "true")
        settings.cache_clear()
        yield
        settings.cache_clear()

    def test_a_network_hears_of_its_own_jobs_alone(self) -> None:
        assert {one.task.network for one in starter_for("gru")} == {"gru"}
        assert starter_for(None) == ()
        assert starter_for("somebody-elses") == ()

    def test_the_most_like_tasks_count_most_and_none_is_the_same_data(self) -> None:
        heard = starter_for("mlp")
        wine = next(one for one in heard if one.reference == "starter_mlp-wine")
        task = Task("val_accuracy", Goal.MAXIMIZE, "dst_mine", "mlp", wine.task.features)
        priors = weighed(task, [], starter=heard)
        weights = dict(zip((one.reference for one in priors.histories), priors.weights, strict=True))
        assert weights["starter_mlp-wine"] == max(weights.values()) < 0.99
        assert weights["starter_mlp-diabetes"] == 0.0
        assert priors.names is not None
        assert priors.names["starter_mlp-wine"] == "starter: mlp-wine"

    def test_switched_off_nobody_hears_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETUNE_STARTER_HISTORY", "false")
        settings.cache_clear()
        assert starter_for("mlp") == ()
