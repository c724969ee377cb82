"""The two state machines: experiments and trials. The tables below are the only list of allowed moves."""

from __future__ import annotations

from enum import StrEnum

from foretune.errors import IllegalTransition


class ExperimentState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def finished(self) -> bool:
        return not EXPERIMENT_MOVES[self]


class TrialState(StrEnum):
    QUEUED = "QUEUED"
    """Waits for a worker; holds its last checkpoint if it ever ran."""
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    """Frozen by a decision; may be thawed."""
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    """Ended early by a decision; its measurements count."""
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"
    """Diverged, or declared impossible."""
    CANCELED = "CANCELED"

    @property
    def finished(self) -> bool:
        return not TRIAL_MOVES[self]


EXPERIMENT_MOVES: dict[ExperimentState, frozenset[ExperimentState]] = {
    ExperimentState.QUEUED: frozenset(
        {
            ExperimentState.RUNNING,
            ExperimentState.PAUSED,
            ExperimentState.COMPLETED,
            ExperimentState.FAILED,
            ExperimentState.CANCELED,
        }
    ),
    ExperimentState.RUNNING: frozenset(
        {
            ExperimentState.PAUSED,
            ExperimentState.COMPLETED,
            ExperimentState.FAILED,
            ExperimentState.CANCELED,
        }
    ),
    # A paused experiment still accepts the last results of its running trials, which may complete it.
    ExperimentState.PAUSED: frozenset(
        {
            ExperimentState.RUNNING,
            ExperimentState.COMPLETED,
            ExperimentState.FAILED,
            ExperimentState.CANCELED,
        }
    ),
    ExperimentState.COMPLETED: frozenset(),
    ExperimentState.FAILED: frozenset(),
    ExperimentState.CANCELED: frozenset(),
}

_TRIAL_ENDS = frozenset(
    {
        TrialState.COMPLETED,
        TrialState.STOPPED,
        TrialState.FAILED,
        TrialState.INFEASIBLE,
        TrialState.CANCELED,
    }
)

TRIAL_MOVES: dict[TrialState, frozenset[TrialState]] = {
    TrialState.QUEUED: frozenset({TrialState.RUNNING, TrialState.FAILED, TrialState.CANCELED}),
    # Back to QUEUED when its worker died or handed it back.
    TrialState.RUNNING: _TRIAL_ENDS | {TrialState.QUEUED, TrialState.PAUSED},
    TrialState.PAUSED: frozenset({TrialState.RUNNING, TrialState.STOPPED, TrialState.CANCELED}),
    TrialState.COMPLETED: frozenset(),
    TrialState.STOPPED: frozenset(),
    TrialState.FAILED: frozenset(),
    TrialState.INFEASIBLE: frozenset(),
    TrialState.CANCELED: frozenset(),
}


def check_experiment_move(current: ExperimentState, target: ExperimentState) -> None:
    """Raises IllegalTransition unless an experiment may go from `current` to `target`."""
    if target not in EXPERIMENT_MOVES[current]:
        raise IllegalTransition(_refusal("experiment", current, target, EXPERIMENT_MOVES[current]))


def check_trial_move(current: TrialState, target: TrialState) -> None:
    """Raises IllegalTransition unless a trial may go from `current` to `target`."""
    if target not in TRIAL_MOVES[current]:
        raise IllegalTransition(_refusal("trial", current, target, TRIAL_MOVES[current]))


def trial_states_before(target: TrialState) -> tuple[TrialState, ...]:
    """The states from which a trial may move to `target`: the guard of an UPDATE."""
    return tuple(state for state, moves in TRIAL_MOVES.items() if target in moves)


def experiment_states_before(target: ExperimentState) -> tuple[ExperimentState, ...]:
    """The states from which an experiment may move to `target`: the guard of an UPDATE."""
    return tuple(state for state, moves in EXPERIMENT_MOVES.items() if target in moves)


def _refusal(
    noun: str, current: StrEnum, target: StrEnum, allowed: frozenset[ExperimentState] | frozenset[TrialState]
) -> str:
    if not allowed:
        return f"the {noun} is {current} and stays so; it cannot become {target}"
    return f"the {noun} is {current}; from there it can become {', '.join(sorted(allowed))}, not {target}"
