"""The door for proposals: replay, pending trials, every kind of space."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import Configuration, Space
from metalearner import Effort, Memory, Observation, Problem, Proposal, ProposerName, propose

MIXED = Space.of(
    Float("learning_rate", 1e-5, 1.0, log=True),
    Int("width", 16, 512, log=True),
    Categorical("optimizer", ["sgd", "adam", "adamw"]),
    Float("momentum", 0.0, 0.99, when={"optimizer": ["sgd"]}),
    Float("dropout", 0.0, 0.5, step=0.1),
    Bool("nesterov", when={"optimizer": ["sgd"]}),
    Schedule(),
)


def _problem(space: Space = MIXED, proposer: str = "auto", seed: int = 0, **fields: object) -> Problem:
    return Problem(space, Goal.MINIMIZE, 10, 1000, seed, ProposerName(proposer), **fields)  # type: ignore[arg-type]


def _loss(configuration: Configuration) -> float:
    rate = math.log10(float(configuration["learning_rate"]))  # type: ignore[arg-type]
    width = math.log2(float(configuration["width"]))  # type: ignore[arg-type]
    return (rate + 2.5) ** 2 + 0.1 * (width - 7) ** 2 + (0.3 if configuration["optimizer"] == "sgd" else 0.0)


def _run(problem: Problem, count: int, effort: Effort = Effort.FAST) -> tuple[list[Proposal], list[Observation]]:
    proposals: list[Proposal] = []
    observations: list[Observation] = []
    memory = Memory()
    for index in range(count):
        proposal = propose(problem, observations, [], 1, index=index, memory=memory, effort=effort)[0]
        proposals.append(proposal)
        observations.append(Observation(proposal.configuration, _loss(proposal.configuration)))
    return proposals, observations


@pytest.mark.parametrize("proposer", ["auto", "gp", "tpe", "random", "quasirandom"])
@pytest.mark.parametrize("effort", list(Effort))
def test_a_proposal_can_be_replayed_without_memory(proposer: str, effort: Effort) -> None:
    problem = _problem(proposer=proposer)
    proposals, observations = _run(problem, 24, effort)

    for index in (0, 11, 18, 23):
        replayed = propose(problem, observations[:index], [], 1, index=index, effort=effort)[0]
        assert replayed == proposals[index]


@pytest.mark.parametrize("proposer", ["gp", "tpe", "random", "quasirandom"])
def test_every_proposal_is_a_point_of_the_space(proposer: str) -> None:
    proposals, _ = _run(_problem(proposer=proposer), 40)

    for proposal in proposals:
        MIXED.check(proposal.configuration)


def test_eight_workers_do_not_get_eight_copies() -> None:
    problem = _problem()
    _, observations = _run(problem, 20)

    proposals = propose(problem, observations, [], 8, index=20)

    rows = [np.nan_to_num(MIXED.to_unit(one.configuration), nan=0.5) for one in proposals]
    apart = [np.abs(left - right).max() for i, left in enumerate(rows) for right in rows[:i]]
    assert min(apart) > 0.01


def test_a_pending_configuration_is_not_proposed_again() -> None:
    problem = _problem()
    _, observations = _run(problem, 15)
    first = propose(problem, observations, [], 1, index=15)[0]

    second = propose(problem, observations, [first.configuration], 1, index=15)[0]

    assert second.configuration != first.configuration


def test_the_model_beats_random_search_by_far() -> None:
    by_model = [min(_loss(one.configuration) for one in _run(_problem(seed=seed), 40)[0]) for seed in range(3)]
    by_chance = [
        min(_loss(one.configuration) for one in _run(_problem(seed=seed, proposer="random"), 40)[0])
        for seed in range(3)
    ]

    assert np.mean(by_model) < 0.3 * np.mean(by_chance)


def test_an_experts_default_comes_first() -> None:
    default: Configuration = {
        "learning_rate": 1e-3,
        "width": 64,
        "optimizer": "adam",
        "dropout": 0.1,
        "lr_schedule": {
            "warmup_fraction": 0.05,
            "plateau_fraction": 0.3,
            "decay_exponent": 1.0,
            "final_fraction": 0.0,
        },
    }

    proposal = propose(_problem(defaults=default), [], [], 1, index=0)[0]

    assert proposal.origin == "default"
    assert proposal.configuration == default


def test_a_space_that_is_used_up_still_gets_proposals() -> None:
    space = Space.of(Categorical("a", ["x", "y"]), Bool("b"))
    problem = _problem(space)
    observations: list[Observation] = []
    for index in range(10):
        proposal = propose(problem, observations, [], 1, index=index)[0]
        observations.append(Observation(proposal.configuration, float(index)))

    seen = {str(one.configuration) for one in observations[:4]}
    assert len(seen) == 4
    assert {str(one.configuration) for one in observations} == seen


@pytest.mark.parametrize(
    "values",
    [
        [None] * 15,
        [math.nan] * 15,
        [math.inf, -math.inf] * 8,
        [1.0] * 15,
        [1e308, -1e308, 0.0] * 5,
        [1e-300, 2e-300, 3e-300] * 5,
        [0.5, None] * 8,
    ],
    ids=["all failed", "nan", "infinite", "constant", "huge", "tiny", "half failed"],
)
@pytest.mark.parametrize("proposer", ["gp", "tpe"])
def test_strange_outcomes_are_survived(values: list[float | None], proposer: str) -> None:
    problem = _problem(proposer=proposer)
    points = [one.configuration for one in propose(_problem(proposer="random"), [], [], len(values), index=0)]
    observations = [
        Observation(point, value, infeasible=value is None) for point, value in zip(points, values, strict=True)
    ]

    for proposal in propose(problem, observations, [], 3, index=len(values)):
        MIXED.check(proposal.configuration)


def test_a_diverged_trial_counts_as_worst() -> None:
    space = Space.of(Float("x", 0.0, 1.0))
    problem = _problem(space, proposer="gp")
    grid = np.linspace(0.0, 1.0, 21)
    observations = [Observation({"x": x}, x if x < 0.5 else None, infeasible=x >= 0.5) for x in grid.tolist()]

    proposals = propose(problem, observations, [], 5, index=21)

    assert all(float(one.configuration["x"]) < 0.5 for one in proposals)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    low=st.floats(-1e6, 1e6),
    spread=st.floats(1e-3, 1e6),
    levels=st.integers(2, 40),
    seed=st.integers(0, 2**31),
    results=st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=15),
)
def test_any_space_gets_valid_proposals(
    low: float, spread: float, levels: int, seed: int, results: list[float]
) -> None:
    space = Space.of(
        Float("x", low, low + spread),
        Int("n", 0, levels),
        Categorical("c", list(range(levels)), ordered=True),
        Float("y", 0.1, 0.2, when={"c": [0, 1]}),
    )
    problem = _problem(space, seed=seed)
    observations: list[Observation] = []
    for index, value in enumerate(results):
        proposal = propose(problem, observations, [], 1, index=index, effort=Effort.FAST)[0]
        space.check(proposal.configuration)
        observations.append(Observation(proposal.configuration, value))


def test_no_torch_is_needed() -> None:
    code = "import sys, metalearner; sys.exit(any(name in sys.modules for name in ('torch', 'botorch', 'sklearn')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
