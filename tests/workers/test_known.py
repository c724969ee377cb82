"""Endings that a desk hears of before they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from foretune.json_types import JsonObject
from foretune.states import TrialState
from metalearner import Effort
from service.usecases import upkeep
from service.usecases.proposals import ToldEnding
from workers import known as module
from workers.proposals import Proposals

if TYPE_CHECKING:
    from foretune.wire.trials import Suggestion
    from tests.service.usecases.conftest import World

FAST = Effort.FAST


@pytest.fixture
def experiment(world: World) -> str:
    """With eight results, and three trials under way."""
    submitted = world.submit(budget={"max_trials": 50, "max_epochs": 3}, seed=3)
    for number, trial in enumerate(world.ask(submitted.id, 8)):
        world.complete(trial.id, trial.lease.token, value=0.1 * number)
    return submitted.id


def running(world: World, experiment: str) -> list[Suggestion]:
    return world.ask(experiment, 3)


def configurations(proposals: Proposals, experiment: str, told: list[ToldEnding]) -> list[JsonObject]:
    return [one.configuration for one in proposals.propose(experiment, 2, FAST, told)]


@pytest.mark.parametrize("outcome", ["completed", "infeasible", "failed"])
def test_what_is_told_is_as_good_as_what_is_read(world: World, experiment: str, outcome: str) -> None:
    trial, *_ = running(world, experiment)
    state = {"completed": TrialState.COMPLETED, "infeasible": TrialState.INFEASIBLE, "failed": TrialState.FAILED}[
        outcome
    ]
    value = 0.9 if outcome == "completed" else None
    desk = Proposals(world.database)
    made = desk.propose(experiment, 2, FAST, [ToldEnding(trial.id, state, value)])
    assert [one.replay["told"] for one in made] == [[trial.id]] * 2
    reason = None if value else "for a test"
    world.complete(trial.id, trial.lease.token, value=value, outcome=outcome, reason=reason)
    # Then who reads it proposes the same, and the desk that was told does not take it for a second result
    read = Proposals(world.database)
    assert [one.configuration for one in made] == configurations(read, experiment, [])
    before = desk.observed(experiment)[1]
    assert before == read.observed(experiment)[1]
    after = desk.propose(experiment, 1, FAST)
    assert "told" not in after[0].replay
    assert desk.observed(experiment)[1] == before


def test_an_ending_that_is_never_written_is_taken_back(
    world: World, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, *_ = running(world, experiment)
    monkeypatch.setattr(module, "_OUTSTANDING_S", -1.0)  # at the next call
    desk = Proposals(world.database)
    told = configurations(desk, experiment, [ToldEnding(trial.id, TrialState.COMPLETED, 0.9)])
    untold = configurations(Proposals(world.database), experiment, [])
    assert told != untold
    assert configurations(desk, experiment, []) == untold
    assert len(desk.observed(experiment)[1]) == 8


def test_an_ending_that_turns_out_otherwise_is_taken_back(world: World, experiment: str) -> None:
    """Given another value was written, or the trial was freed for somebody else, what was read counts."""
    ended, freed, _ = running(world, experiment)
    desk = Proposals(world.database)
    configurations(desk, experiment, [ToldEnding(one.id, TrialState.COMPLETED, 0.9) for one in (ended, freed)])
    assert [one.value for one in desk.observed(experiment)[1]][8:] == [0.9, 0.9]
    world.complete(ended.id, ended.lease.token, value=0.2)
    world.let_lease_run_out(freed.id)
    upkeep.sweep(world.database, world.bus)
    desk.propose(experiment, 1, FAST)
    desk.forget_outstanding(experiment)
    assert [one.value for one in desk.observed(experiment)[1]][8:] == [0.2]
    assert desk.observed(experiment)[1] == Proposals(world.database).observed(experiment)[1]
    assert configurations(desk, experiment, []) == configurations(Proposals(world.database), experiment, [])


def test_what_is_measured_meanwhile_does_not_unsay_it(world: World, experiment: str) -> None:
    trial, *_ = running(world, experiment)
    desk = Proposals(world.database)
    configurations(desk, experiment, [ToldEnding(trial.id, TrialState.COMPLETED, 0.9)])
    world.beat(trial.id, trial.lease.token)
    desk.propose(experiment, 1, FAST)
    assert [one.value for one in desk.observed(experiment)[1]][8:] == [0.9]


def test_nothing_is_heard_of_a_trial_that_has_ended_or_is_unknown(world: World, experiment: str) -> None:
    trial, *_ = running(world, experiment)
    world.complete(trial.id, trial.lease.token, value=0.2)
    desk = Proposals(world.database)
    told = [ToldEnding(one, TrialState.COMPLETED, 0.9) for one in (trial.id, "tri_unknown")]
    assert configurations(desk, experiment, told) == configurations(Proposals(world.database), experiment, [])
