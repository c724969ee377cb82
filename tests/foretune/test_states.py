"""The two state machines, against the picture in the contract and against themselves."""

from __future__ import annotations

import pytest

from foretune.errors import IllegalTransition
from foretune.states import (
    EXPERIMENT_MOVES,
    TRIAL_MOVES,
    ExperimentState,
    TrialState,
    check_experiment_move,
    check_trial_move,
    experiment_states_before,
    trial_states_before,
)

E, T = ExperimentState, TrialState
# As the contract draws it: QUEUED → RUNNING ⇄ PAUSED → COMPLETED | FAILED | CANCELED, and cancel from anywhere.
EXPERIMENTS = {
    E.QUEUED: {E.RUNNING, E.PAUSED, E.COMPLETED, E.FAILED, E.CANCELED},
    E.RUNNING: {E.PAUSED, E.COMPLETED, E.FAILED, E.CANCELED},
    E.PAUSED: {E.RUNNING, E.COMPLETED, E.FAILED, E.CANCELED},
}
ENDS = {T.COMPLETED, T.STOPPED, T.FAILED, T.INFEASIBLE, T.CANCELED}
TRIALS = {
    T.QUEUED: {T.RUNNING, T.FAILED, T.CANCELED},
    T.RUNNING: ENDS | {T.QUEUED, T.PAUSED},
    T.PAUSED: {T.RUNNING, T.STOPPED, T.CANCELED},
}


@pytest.mark.parametrize("current", E)
@pytest.mark.parametrize("target", E)
def test_experiments_move_as_drawn(current: ExperimentState, target: ExperimentState) -> None:
    if target in EXPERIMENTS.get(current, set()):
        check_experiment_move(current, target)
    else:
        with pytest.raises(IllegalTransition, match=f"the experiment is {current}"):
            check_experiment_move(current, target)
    assert (current in experiment_states_before(target)) == (target in EXPERIMENTS.get(current, set()))


@pytest.mark.parametrize("current", T)
@pytest.mark.parametrize("target", T)
def test_trials_move_as_drawn(current: TrialState, target: TrialState) -> None:
    if target in TRIALS.get(current, set()):
        check_trial_move(current, target)
    else:
        with pytest.raises(IllegalTransition, match=f"the trial is {current}"):
            check_trial_move(current, target)
    assert (current in trial_states_before(target)) == (target in TRIALS.get(current, set()))


def test_the_tables_name_every_state() -> None:
    assert set(EXPERIMENT_MOVES) == set(E)
    assert set(TRIAL_MOVES) == set(T)


@pytest.mark.parametrize("state", E)
def test_every_experiment_can_end(state: ExperimentState) -> None:
    assert state.finished == (state not in EXPERIMENTS)
    assert state.finished or any(target.finished for target in EXPERIMENT_MOVES[state])


@pytest.mark.parametrize("state", T)
def test_every_trial_can_end_and_be_canceled(state: TrialState) -> None:
    assert state.finished == (state in ENDS)
    assert state.finished or T.CANCELED in TRIAL_MOVES[state]


def test_a_refusal_names_what_would_be_right() -> None:
    with pytest.raises(IllegalTransition) as caught:
        check_experiment_move(E.PAUSED, E.QUEUED)
    assert (
        caught.value.message
        == "the experiment is PAUSED; from there it can become CANCELED, COMPLETED, FAILED, RUNNING, not QUEUED"
    )
    with pytest.raises(IllegalTransition, match="the trial is STOPPED and stays so; it cannot become RUNNING"):
        check_trial_move(T.STOPPED, T.RUNNING)
