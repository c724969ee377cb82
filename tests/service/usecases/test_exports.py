"""Exports: every trial once, in three formats that other tools read."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretune.errors import NotFound
from foretune.json_types import JsonValue
from service.db.session import Transaction
from service.usecases import experiments, exports
from service.usecases.exports import MEDIA_TYPES, ExportFormat

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

SPACE: list[JsonValue] = [
    {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 4},
    {"name": "flag", "type": "bool"},
    {"name": "kind", "type": "categorical", "choices": ["a,b", 'say "hi"', "line\nbreak", "ü"]},
    {"name": "mixed", "type": "categorical", "choices": [1, "1", True]},
    {"name": "momentum", "type": "float", "low": 0, "high": 0.9, "when": {"flag": [True]}},
    {"name": "lr_schedule", "type": "schedule"},
]


def export(world: World, experiment_id: str, wanted: ExportFormat) -> bytes:
    return b"".join(exports.stream(world.database, world.project, experiment_id, wanted))


@pytest.fixture
def finished(world: World) -> str:
    """An experiment with trials of every kind: told in full, in part, not a number, infeasible, canceled."""
    experiment = world.submit(
        space=SPACE, fixed={"batch_size": 32, "note": ["x", {"y": 1}]}, budget={"max_trials": 8, "max_epochs": 3}
    )
    first, second, third, _ = world.ask(experiment.id, count=4)
    world.measure(first.id, first.lease.token, {1: 0.25, 2: 0.5, 3: 0.75})
    world.complete(first.id, first.lease.token)
    world.measure(second.id, second.lease.token, {1: 0.125, 2: None})
    world.complete(third.id, third.lease.token, outcome="infeasible", reason="does not fit,\nreally")
    with world.database.transaction() as tx:
        experiments.cancel(tx, world.bus, world.project, experiment.id)
    return experiment.id


class TestCsv:
    def test_one_row_a_trial_with_everything_flat(self, world: World, finished: str) -> None:
        rows = list(csv.DictReader(io.StringIO(export(world, finished, ExportFormat.CSV).decode(), newline="")))
        trials = world.trials(finished)
        assert [row["id"] for row in rows] == [trial.id for trial in trials]
        for row, trial in zip(rows, trials, strict=True):
            assert (row["state"], int(row["number"]), int(row["epochs"])) == (trial.state, trial.number, trial.epochs)
            assert row["value"] == ("" if trial.value is None else str(trial.value))
            assert row["reason"] == (trial.reason or "")
            assert row["hyperparameters.kind"] == trial.hyperparameters["kind"]
            assert float(row["hyperparameters.lr"]) == trial.hyperparameters["lr"]
            assert json.loads(row["hyperparameters.flag"]) is trial.hyperparameters["flag"]
            assert (row["hyperparameters.momentum"] == "") == (not trial.hyperparameters["flag"])
            assert json.loads(row["hyperparameters.note"]) == ["x", {"y": 1}]
            assert trial.lr_schedule is not None
            assert float(row["lr_schedule.peak"]) == trial.lr_schedule.peak == trial.hyperparameters["lr"]
            assert float(row["lr_schedule.decay_exponent"]) == trial.lr_schedule.decay_exponent
        assert rows[2]["reason"] == "does not fit,\nreally"

    def test_pandas_reads_it(self, world: World, finished: str) -> None:
        table = pd.read_csv(io.BytesIO(export(world, finished, ExportFormat.CSV)))
        assert table["value"].dropna().tolist() == [0.75]
        assert table["best_value"].dropna().tolist() == [0.75, 0.125]
        assert table["hyperparameters.batch_size"].tolist() == [32] * 4

    def test_without_trials_there_is_a_header(self, world: World) -> None:
        experiment = world.submit()
        (header,) = csv.reader(io.StringIO(export(world, experiment.id, ExportFormat.CSV).decode()))
        assert header[:3] == ["id", "number", "state"]
        assert header[-1] == "lr_schedule.final_fraction"


class TestJsonl:
    def test_one_trial_a_line_as_the_api_answers_it(self, world: World, finished: str) -> None:
        lines = export(world, finished, ExportFormat.JSONL).decode().splitlines()
        for line, trial in zip(map(json.loads, lines), world.trials(finished), strict=True):
            measured = line.pop("measurements")
            assert line == trial.model_dump(mode="json")
            assert len(measured) == trial.epochs
        assert [one["value"] for one in json.loads(lines[0])["measurements"]] == [0.25, 0.5, 0.75]
        assert json.loads(lines[1])["measurements"][1] == {"epoch": 2, "value": None, "seconds": 1.0, "metrics": {}}

    def test_without_trials_it_is_empty(self, world: World) -> None:
        assert export(world, world.submit().id, ExportFormat.JSONL) == b""


class TestParquet:
    def test_columns_have_types_and_curves_are_lists(self, world: World, finished: str) -> None:
        table = pq.read_table(io.BytesIO(export(world, finished, ExportFormat.PARQUET)))
        types = {field.name: field.type for field in table.schema}
        assert types["hyperparameters.lr"] == pa.float64()
        assert types["hyperparameters.layers"] == types["hyperparameters.batch_size"] == pa.int64()
        assert types["hyperparameters.flag"] == pa.bool_()
        assert types["hyperparameters.kind"] == types["hyperparameters.mixed"] == pa.string()
        assert types["created_at"] == pa.timestamp("us", tz="UTC")
        assert types["curve.value"] == pa.list_(pa.float64())
        assert table["curve.epoch"].to_pylist() == [[1, 2, 3], [1, 2], [], []]
        assert table["curve.value"].to_pylist() == [[0.25, 0.5, 0.75], [0.125, None], [], []]
        for row, trial in zip(table.to_pylist(), world.trials(finished), strict=True):
            assert row["id"] == trial.id
            assert row["started_at"] == trial.started_at
            assert row["hyperparameters.momentum"] == trial.hyperparameters.get("momentum")
            assert row["hyperparameters.kind"] == trial.hyperparameters["kind"]
            mixed, told = json.loads(row["hyperparameters.mixed"]), trial.hyperparameters["mixed"]
            assert (type(mixed), mixed) == (type(told), told)

    def test_without_trials_it_is_a_table_without_rows(self, world: World) -> None:
        assert pq.read_table(io.BytesIO(export(world, world.submit().id, ExportFormat.PARQUET))).num_rows == 0


class TestEvery:
    @pytest.mark.parametrize("wanted", ExportFormat)
    def test_batches_lose_and_repeat_nothing(
        self, world: World, wanted: ExportFormat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given many trials and batches of a few epochs, every trial is there once, by number."""
        monkeypatch.setattr(exports, "_TRIALS_A_READ", 3)
        monkeypatch.setattr(exports, "_EPOCHS_A_BATCH", 2)
        experiment = world.submit(budget={"max_trials": 20, "max_epochs": 3})
        for number, one in enumerate(world.ask(experiment.id, count=20)):
            world.measure(one.id, one.lease.token, dict.fromkeys(range(1, number % 4), 0.5) or {1: None})
        data = export(world, experiment.id, wanted)
        match wanted:
            case ExportFormat.CSV:
                numbers = pd.read_csv(io.BytesIO(data))["number"].tolist()
            case ExportFormat.JSONL:
                numbers = [json.loads(line)["number"] for line in data.splitlines()]
            case ExportFormat.PARQUET:
                numbers = pq.read_table(io.BytesIO(data))["number"].to_pylist()
        assert numbers == list(range(1, 21))

    @pytest.mark.parametrize("wanted", ExportFormat)
    def test_nobody_elses(self, world: World, strangers: World, wanted: ExportFormat) -> None:
        """Given another project's experiment, it is unknown, and is so before anything is sent."""
        experiment = strangers.submit()
        with pytest.raises(NotFound, match=experiment.id):
            exports.stream(world.database, world.project, experiment.id, wanted)

    def test_one_that_is_deleted_meanwhile_breaks_off(self, world: World, finished: str) -> None:
        """Given the rows are gone before they were read, the file must not look complete."""
        pieces = exports.stream(world.database, world.project, finished, ExportFormat.CSV)
        next(pieces)
        with world.database.transaction() as tx:
            delete(tx, world.project, finished)
        with pytest.raises(NotFound):
            next(pieces)

    def test_each_has_its_media_type(self) -> None:
        assert set(MEDIA_TYPES) == set(ExportFormat)


def delete(tx: Transaction, project: str, experiment_id: str) -> None:
    experiments.delete(tx, project, experiment_id)
