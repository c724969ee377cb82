"""Histories: finished experiments as arrays, and experiments from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from foretune.errors import InvalidHistory
from foretune.json_types import JsonObject, JsonValue
from service.db.histories import StoredHistory
from service.db.session import Database
from service.db.tables import histories as table
from service.usecases import experiments, fitting, histories, metalearner, upkeep

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

LINE: JsonObject = {
    "name": "elsewhere",
    "space": [
        {"name": "lr", "type": "float", "low": 1e-4, "high": 1.0, "log": True},
        {"name": "layers", "type": "int", "low": 1, "high": 4},
    ],
    "metric": "val_accuracy",
    "max_epochs": 3,
    "features": {"rows": 100, "modality": "image"},
    "trials": [
        {"hyperparameters": {"lr": 0.1, "layers": 2}, "curve": [0.5, 0.75, 0.7], "value": 0.7},
        {"hyperparameters": {"lr": 0.9, "layers": 1}, "curve": [0.1, None], "state": "INFEASIBLE"},
        {"hyperparameters": {"lr": 0.2, "layers": 1}, "state": "FAILED"},
    ],
}
PLACES: list[tuple[str | int, ...]] = [
    ("name",),
    ("space",),
    ("space", 0),
    ("space", 0, "low"),
    ("metric",),
    ("max_epochs",),
    ("features",),
    ("features", "n"),
    ("trials",),
    ("trials", 0),
    ("trials", 0, "curve"),
    ("trials", 0, "value"),
    ("trials", 0, "state"),
    ("trials", 0, "hyperparameters"),
    ("trials", 0, "hyperparameters", "lr"),
    ("fixed",),
    ("fixed", "x"),
    ("dataset",),
    ("network",),
]
"""Where a line may hold anything."""


def known(world: World) -> list[StoredHistory]:
    with world.database.reading() as tx:
        return histories.read_some(tx, world.project, fitting.heard(tx, world.project))


def send(database: Database, project: str, line: object) -> bool:
    with database.transaction() as tx:
        return histories.import_line(tx, project, line if isinstance(line, bytes) else orjson.dumps(line))


def finish(world: World, **changes: JsonValue) -> str:
    """An experiment with one good, one diverged and two canceled trials."""
    experiment = world.submit(**changes)
    first, second, *_ = world.ask(experiment.id, count=4)
    world.measure(first.id, first.lease.token, {1: 0.25, 2: 1 / 3, 3: 0.3})
    world.complete(first.id, first.lease.token)
    world.complete(second.id, second.lease.token, outcome="infeasible", reason="diverged")
    with world.database.transaction() as tx:
        experiments.cancel(tx, world.bus, world.project, experiment.id)
    return experiment.id


def with_trial(**fields: object) -> JsonObject:
    """The line with a first trial that says this too."""
    first, *others = LINE["trials"]  # type: ignore[misc]
    return {**LINE, "trials": [{**first, **fields}, *others]}  # type: ignore[dict-item]


class TestCompaction:
    def test_upkeep_makes_a_history_of_what_has_finished_and_of_nothing_else(self, world: World) -> None:
        running, finished = world.submit(), finish(world, features={"rows": 7.0}, fixed={"batch_size": 32})
        assert known(world) == []
        for _ in range(2):
            upkeep.sweep(world.database, world.bus)
            (history,) = known(world)
        assert history.experiment_id == finished != running.id
        assert history.reference == finished
        assert history.results == [0.3333333, None]
        assert (history.features, history.fixed) == ({"rows": 7.0}, {"batch_size": 32})
        good, diverged = (trial.hyperparameters["lr"] for trial in world.trials(finished)[:2])
        assert history.configurations["lr"] == [good, diverged]
        with world.database.reading() as tx:
            row = tx.connection.execute(select(table)).mappings().one()
        assert (row["curves"], row["states"]) == ([[0.25, 0.3333333, 0.3], []], ["COMPLETED", "INFEASIBLE"])
        assert (row["seconds"], row["trials"], row["curve_every"]) == ([3.0, 0.0], 2, 1)

    def test_an_experiment_without_a_value_leaves_none_and_is_not_looked_at_again(self, world: World) -> None:
        experiment = world.submit()
        (trial,) = world.ask(experiment.id)
        world.complete(trial.id, trial.lease.token, outcome="infeasible", reason="no")
        with world.database.transaction() as tx:
            experiments.cancel(tx, world.bus, world.project, experiment.id)
        assert histories.compact_finished(world.database) == 1
        assert histories.compact_finished(world.database) == 0
        assert known(world) == []

    def test_whoever_dies_in_the_middle_leaves_nothing_half_done(self, world: World) -> None:
        """Given a transaction that wrote the history and never committed, the next round finds all as it was."""
        finish(world)

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.db.histories.mark_compacted", die)
            with pytest.raises(KeyboardInterrupt):
                histories.compact_finished(world.database)
        assert known(world) == []
        histories.compact_finished(world.database)
        assert len(known(world)) == 1

    def test_a_long_curve_and_many_trials_are_thinned_evenly(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(histories, "MAX_POINTS", 2)
        monkeypatch.setattr(histories, "MAX_TRIALS", 2)
        experiment = world.submit(budget={"max_trials": 4, "max_epochs": 6})
        trials = world.ask(experiment.id, count=4)
        for number, trial in enumerate(trials):
            world.measure(trial.id, trial.lease.token, {epoch: number + epoch / 10 for epoch in range(1, 7)})
            world.complete(trial.id, trial.lease.token)
        histories.compact_finished(world.database)
        with world.database.reading() as tx:
            row = tx.connection.execute(select(table)).mappings().one()
        assert row["curve_every"] == 3
        assert row["curves"] == [[1.3, 1.6], [3.3, 3.6]]

    def test_deleting_the_experiment_forgets_its_history(self, world: World) -> None:
        finished = finish(world)
        histories.compact_finished(world.database)
        with world.database.transaction() as tx:
            experiments.delete(tx, world.project, finished)
        assert known(world) == []

    def test_an_experiment_learns_from_what_had_ended_before_it(self, world: World, strangers: World) -> None:
        finish(strangers)
        first = finish(world)
        later = world.submit()
        second = finish(world, name="second", features={"x": 1.0})
        histories.compact_finished(world.database)
        seen = {}
        for priors in ("auto", "none", [first], [second]):
            with world.database.transaction() as tx:
                stored = experiments.find(tx, world.project, later.id)
                stored = type(stored)(**{**stored.__dict__, "priors": priors})
                seen[str(priors)] = [history.experiment_id for history in histories.read_for(tx, stored)]
        assert seen == {"auto": [first], "none": [], str([first]): [first], str([second]): []}

    def test_one_statement_a_project_reads_them_all(self, world: World) -> None:
        for number in range(3):
            send(world.database, world.project, {**LINE, "features": {"n": number}})
        finish(world)
        histories.catch_up(world.database, world.project)
        with world.database.reading() as tx:
            found = metalearner.describe(tx, world.project)
        assert (found.experiments, found.imported, found.trials, found.waiting) == (4, 3, 8, False)


class TestImport:
    def test_a_history_from_elsewhere_is_kept_once(self, world: World, strangers: World) -> None:
        assert send(world.database, world.project, LINE)
        assert not send(world.database, world.project, {**LINE, "name": "another name"})
        assert send(strangers.database, strangers.project, LINE)
        (history,) = known(world)
        assert history.reference.startswith("his_")
        assert (history.goal, history.metric_name) == ("maximize", "val_accuracy")
        assert history.results == [0.75, None]
        assert history.configurations == {"lr": [0.1, 0.9], "layers": [2, 1]}
        assert history.ended_at <= datetime.now(UTC)

    def test_the_goal_is_guessed_or_given(self, world: World) -> None:
        for number, metric in enumerate(("val_loss", {"name": "odd", "goal": "maximize"})):
            line = {**LINE, "metric": metric, "features": {"n": number}}
            send(world.database, world.project, line)
        assert {(one.metric_name, one.goal.value) for one in known(world)} == {
            ("val_loss", "minimize"),
            ("odd", "maximize"),
        }

    @pytest.mark.parametrize(
        ("line", "code", "said"),
        [
            (b"{", "invalid_json", "no JSON"),
            (b'{"name": NaN}', "invalid_json", "no JSON"),
            (b"[]", "invalid_history", "the line"),
            ({**LINE, "extra": 1}, "invalid_history", "extra"),
            ({**LINE, "space": []}, "invalid_history", "space"),
            ({**LINE, "space": LINE["space"] * 2}, "invalid_space", "stands twice"),  # type: ignore[operator]
            ({**LINE, "trials": []}, "invalid_history", "trials"),
            (
                {**LINE, "trials": [{"hyperparameters": {"lr": 0.1, "layers": 9}, "value": 1}]},
                "invalid_configuration",
                r"trials\.0: layers must lie from 1 to 4, not 9",
            ),
            ({**LINE, "trials": [LINE["trials"][1]]}, "invalid_history", "value to learn from"),  # type: ignore[index]
            ({**LINE, "name": "a\u0000b"}, "invalid_history", "name"),
            (
                with_trial(curve=[0.1] * 9),
                "invalid_history",
                r"curve of trial 0 \(from 0\) has 9 epochs, and max_epochs is",
            ),
            (
                with_trial(curve=[0.1], seconds=[-1.0]),
                "invalid_history",
                r"trials\.0\.seconds\.0: .*greater than or equal",
            ),
            (with_trial(curve=[0.1], seconds=[1.0, 2.0]), "invalid_history", "seconds has 2 numbers, and the curve 1"),
        ],
    )
    def test_a_bad_line_is_refused_with_what_is_wrong(self, world: World, line: object, code: str, said: str) -> None:
        with pytest.raises(InvalidHistory, match=said) as refused:
            send(world.database, world.project, line)
        assert refused.value.code == code
        assert known(world) == []

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        place=st.sampled_from(PLACES),
        value=st.recursive(
            st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    )
    @example(place=("trials", 0, "value"), value=1e308)
    @example(place=("fixed", "x"), value="\u0000")
    def test_whatever_a_line_holds_it_is_kept_or_refused(
        self, world: World, place: tuple[str | int, ...], value: object
    ) -> None:
        line = orjson.loads(orjson.dumps({**LINE, "fixed": {}}))
        parent = line
        for part in place[:-1]:
            parent = parent[part]
        parent[place[-1]] = value
        written = orjson.dumps(line, default=str)
        before = len(known(world))
        try:
            kept = send(world.database, world.project, written)
        except InvalidHistory:
            kept = False
        assert len(known(world)) == before + kept
