"""Experiments: lists, steering, patches, deletion, and what the progress says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.errors import Conflict, IllegalTransition, InvalidExperiment, InvalidRequest, NotFound
from foretune.json_types import JsonObject, JsonValue
from foretune.states import ExperimentState, TrialState
from foretune.wire.experiments import Experiment, ExperimentPatch
from service.bus.names import QUEUE_TRAIN
from service.usecases import experiments, trials

if TYPE_CHECKING:
    from tests.service.usecases.conftest import World

E = ExperimentState


def listed(world: World, limit: int = 100, state: ExperimentState | None = None, label: tuple[str, str] | None = None):  # type: ignore[no-untyped-def]
    found, cursor = [], None
    while True:
        with world.database.transaction() as tx:
            page = experiments.list_page(tx, world.project, state=state, label=label, limit=limit, cursor=cursor)
        found += [one.id for one in page.items]
        cursor = page.next
        if cursor is None:
            return found


def steer(world: World, verb: str, experiment_id: str) -> Experiment:
    with world.database.transaction() as tx:
        steered: Experiment = getattr(experiments, verb)(tx, world.bus, world.project, experiment_id)
        return steered


def patch(world: World, experiment_id: str, **changes: JsonValue) -> Experiment:
    with world.database.transaction() as tx:
        change = ExperimentPatch.model_validate(changes)
        return experiments.patch(tx, world.bus, world.project, experiment_id, change)


class TestLists:
    def test_pages_go_from_the_newest_to_the_oldest(self, world: World) -> None:
        made = [world.submit().id for _ in range(7)]
        for limit in (1, 2, 3, 7, 50):
            assert listed(world, limit) == made[::-1]

    def test_one_made_between_two_pages_moves_nothing(self, world: World) -> None:
        made = [world.submit().id for _ in range(4)]
        with world.database.transaction() as tx:
            page = experiments.list_page(tx, world.project, state=None, label=None, limit=2, cursor=None)
        world.submit()
        with world.database.transaction() as tx:
            rest = experiments.list_page(tx, world.project, state=None, label=None, limit=2, cursor=page.next)
        assert [one.id for one in (*page.items, *rest.items)] == made[::-1]

    def test_by_state_and_by_label(self, world: World) -> None:
        red, blue = (world.submit(labels={"colour": colour, "x": "y"}).id for colour in ("red", "blue"))
        steer(world, "pause", red)
        assert listed(world, state=E.PAUSED) == [red]
        assert listed(world, state=E.QUEUED) == [blue]
        assert listed(world, label=("colour", "blue")) == [blue]
        assert listed(world, label=("colour", "green")) == []
        assert listed(world, label=("colour' OR 1=1", "blue")) == []

    def test_nobody_elses(self, world: World, strangers: World) -> None:
        theirs = strangers.submit()
        (trial,) = strangers.ask(theirs.id)
        assert listed(world) == []
        with pytest.raises(NotFound, match=theirs.id):
            world.experiment(theirs.id)
        with pytest.raises(NotFound, match=trial.id):
            world.trial(trial.id)
        with pytest.raises(NotFound):
            world.trials(theirs.id)
        with pytest.raises(NotFound):
            world.events(theirs.id)
        with pytest.raises(NotFound):
            world.measure(trial.id, trial.lease.token, {1: 0.5})
        for verb in ("pause", "resume", "cancel"):
            with pytest.raises(NotFound):
                steer(world, verb, theirs.id)
        assert strangers.experiment(theirs.id).state is E.RUNNING

    def test_trials_and_measurements_are_paged_too(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 5, "max_epochs": 5})
        first = world.ask(experiment.id, 5)[0]
        world.measure(first.id, first.lease.token, dict.fromkeys((1, 2, 3, 5), 0.5))
        for limit in (1, 2, 4):
            numbers, epochs, cursor = [], [], None
            with world.database.transaction() as tx:
                while True:
                    page = trials.list_page(
                        tx, world.project, experiment.id, state=TrialState.RUNNING, limit=limit, cursor=cursor
                    )
                    numbers += [trial.number for trial in page.items]
                    if (cursor := page.next) is None:
                        break
                while True:
                    told = trials.measurements_page(tx, world.project, first.id, limit=limit, cursor=cursor)
                    epochs += [one.epoch for one in told.items]
                    if (cursor := told.next) is None:
                        break
            assert (numbers, epochs) == ([1, 2, 3, 4, 5], [1, 2, 3, 5])

    def test_a_strange_cursor_is_refused(self, world: World) -> None:
        experiment = world.submit()
        with world.database.transaction() as tx, pytest.raises(InvalidRequest, match="cursor"):
            experiments.list_page(tx, world.project, state=None, label=None, limit=5, cursor="x")
        with world.database.transaction() as tx, pytest.raises(InvalidRequest, match="cursor"):
            trials.list_page(tx, world.project, experiment.id, state=None, limit=5, cursor="x")


class TestSteering:
    def test_doing_it_twice_changes_nothing(self, world: World) -> None:
        experiment = world.submit()
        for verb, state in (("pause", E.PAUSED), ("resume", E.RUNNING), ("cancel", E.CANCELED)):
            first, second = steer(world, verb, experiment.id), steer(world, verb, experiment.id)
            assert first.state is second.state is state
            assert first.last_event == second.last_event

    def test_what_is_over_stays_so(self, world: World) -> None:
        experiment = world.submit()
        steer(world, "cancel", experiment.id)
        for verb in ("pause", "resume"):
            with pytest.raises(IllegalTransition, match="is CANCELED and stays so"):
                steer(world, verb, experiment.id)

    def test_workers_hear_of_managed_ones_alone(self, world: World, published: None) -> None:
        def rings() -> int:
            return world.bus.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN]

        world.submit()
        assert rings() == 0
        managed = world.submit_managed()
        after_submit = rings()
        assert after_submit >= 1
        steer(world, "pause", managed.id)
        assert rings() == after_submit
        steer(world, "resume", managed.id)
        assert rings() > after_submit

    def test_nothing_rings_for_what_was_rolled_back(self, world: World, published: None) -> None:
        managed = world.submit_managed()
        before = world.bus.queue_lengths((QUEUE_TRAIN,))

        def resume_then_fail() -> None:
            with world.database.transaction() as tx:
                experiments.resume(tx, world.bus, world.project, managed.id)
                raise ValueError("changed my mind")

        with pytest.raises(ValueError, match="changed my mind"):
            resume_then_fail()
        assert world.bus.queue_lengths((QUEUE_TRAIN,)) == before
        assert world.experiment(managed.id).state is E.QUEUED


class TestProgress:
    def test_it_tells_what_is_spent(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 4, "max_epochs": 10})
        assert experiment.progress.fraction == 0.0
        assert experiment.progress.trials == {}
        assert experiment.started_at is None
        first, _ = world.ask(experiment.id, 2)
        world.measure(first.id, first.lease.token, dict.fromkeys(range(1, 9), 0.5))
        world.let_time_pass(experiment.id, 100)
        now = world.experiment(experiment.id)
        assert now.progress.trials == {"RUNNING": 2}
        assert now.progress.epochs == 8
        assert now.progress.fraction == pytest.approx(8 / 40)
        assert now.progress.seconds >= 100
        assert now.progress.eta_seconds == pytest.approx(4 * now.progress.seconds)

    def test_the_best_trial_is_told_in_full(self, world: World) -> None:
        experiment = world.submit(metric={"name": "loss", "goal": "minimize"})
        first, second = world.ask(experiment.id, 2)
        world.measure(first.id, first.lease.token, {1: 0.5, 2: 0.25})
        world.measure(second.id, second.lease.token, {1: 0.75})
        best = world.experiment(experiment.id).best
        assert best is not None
        assert (best.trial, best.number, best.value, best.epoch) == (first.id, 1, 0.25, 2)
        assert best.hyperparameters == first.hyperparameters
        assert best.lr_schedule == first.lr_schedule

    def test_without_any_value_it_has_failed_and_says_why(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 2})
        for trial, outcome in zip(world.ask(experiment.id, 2), ("infeasible", "failed"), strict=True):
            world.complete(trial.id, trial.lease.token, outcome=outcome, reason=f"it {outcome}")
        ended = world.experiment(experiment.id)
        assert (ended.state, ended.reason) == (E.FAILED, "no trial gave a value; trial 1: it infeasible")


class TestPatch:
    def test_a_raised_budget_gives_more_trials(self, world: World) -> None:
        experiment = world.submit(budget={"max_trials": 1, "max_epochs": 3, "max_seconds": 100.0})
        world.ask(experiment.id)
        patched = patch(world, experiment.id, budget={"max_trials": 3, "max_seconds": 200.0})
        assert (patched.budget.max_trials, patched.budget.max_seconds, patched.budget.max_epochs) == (3, 200.0, 3)
        assert len(world.ask(experiment.id, 5)) == 2

    def test_a_wider_space_is_searched(self, world: World) -> None:
        experiment = world.submit(space=[{"name": "x", "type": "float", "low": 0, "high": 1}])
        patch(world, experiment.id, space=[{"name": "x", "type": "float", "low": -100, "high": 100}])
        values = [trial.hyperparameters["x"] for trial in world.ask(experiment.id, 4)]
        assert any(not 0 <= value <= 1 for value in values)  # type: ignore[operator]

    def test_name_labels_and_parallelism(self, world: World) -> None:
        experiment = world.submit()
        patched = patch(world, experiment.id, name="new", labels={"a": "b"}, parallelism=3)
        assert (patched.name, patched.labels, patched.parallelism) == ("new", {"a": "b"}, 3)
        steer(world, "cancel", experiment.id)
        assert patch(world, experiment.id, name="newer").name == "newer"
        with pytest.raises(Conflict, match="only name and labels can change"):
            patch(world, experiment.id, parallelism=4)

    @pytest.mark.parametrize(
        ("changes", "place", "words"),
        [
            ({"budget": {"max_trials": 3}}, ("body", "budget", "max_trials"), "max_trials can only be raised"),
            ({"budget": {"max_total_epochs": 9}}, ("body", "budget", "max_total_epochs"), "it is unlimited"),
            ({"budget": {"max_seconds": 9.0}}, ("body", "budget", "max_seconds"), "not above 9"),
            ({"budget": {"target": 0.5}}, ("body", "budget", "target"), "can only be made harder"),
            ({"space": [{"name": "y", "type": "bool"}]}, ("body", "space"), "keeps the same parameters"),
            (
                {"space": [{"name": "lr", "type": "float", "low": 0.0, "high": 2.0}]},
                ("body", "space", 0),
                "greater than 0",
            ),
        ],
    )
    def test_what_narrows_is_refused(
        self, world: World, changes: JsonObject, place: tuple[object, ...], words: str
    ) -> None:
        experiment = world.submit(
            space=[{"name": "lr", "type": "float", "low": 0.5, "high": 1.0}],
            fixed={"lr_schedule": {}},
            budget={"max_trials": 4, "max_seconds": 10.0, "target": 0.75},
        )
        with pytest.raises(InvalidExperiment, match=words) as caught:
            patch(world, experiment.id, **changes)
        assert caught.value.errors[0].loc == place
        assert world.experiment(experiment.id) == experiment

    def test_a_target_cannot_come_later(self, world: World) -> None:
        with pytest.raises(InvalidExperiment, match=r"harder: there is none, not 0\.5"):
            patch(world, world.submit().id, budget={"target": 0.5})


class TestDelete:
    def test_only_what_is_over_can_go(self, world: World) -> None:
        experiment = world.submit()
        world.ask(experiment.id)
        with world.database.transaction() as tx, pytest.raises(Conflict, match="is RUNNING: cancel it") as caught:
            experiments.delete(tx, world.project, experiment.id)
        assert caught.value.code == "experiment_not_finished"
        steer(world, "cancel", experiment.id)
        with world.database.transaction() as tx:
            assert experiments.delete(tx, world.project, experiment.id) == []
        with pytest.raises(NotFound):
            world.experiment(experiment.id)
