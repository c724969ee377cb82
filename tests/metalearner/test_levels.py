"""Where results stand among those of histories, and when that says something."""

from __future__ import annotations

import numpy as np
import pytest

from foretune.metrics import Goal
from metalearner import Memory, Observation, Problem, Task, informed
from metalearner.gate import gate, verdict
from metalearner.levels import levels
from tests.metalearner.wrong_histories import SPACE, histories, loss

METRIC = Task("val_loss", Goal.MINIMIZE)
_PROMISED = (
    (0.0455, 134, 0.4112, 0.05651),
    (0.2621, 86, 0.3557, 0.04806),
    (0.05263, 80, 0.3899, 0.009018),
    (0.06367, 187, 0.2755, 0.005522),
    (0.08213, 57, 0.1979, 0.08949),
)
"""Settings that matching histories think are good, of all parameters in their order."""


def _problem(metric: str = "val_loss") -> Problem:
    return Problem(SPACE, Goal.MINIMIZE, 1, 50, 0, metric=metric)


def test_a_standing_is_the_share_of_everything_that_is_better() -> None:
    generator = np.random.default_rng(0)
    losses = [generator.random(33) for _ in range(6)]
    found = levels(losses)
    assert found is not None
    asked = np.array([-1.0, 0.2, 0.5, 2.0, np.inf])
    everything = np.concatenate(losses)
    expected = [float((everything < one).mean()) for one in asked]
    assert found.standing(asked) == pytest.approx(expected)


def test_diverged_trials_are_the_worst_and_stand_alike() -> None:
    found = levels([np.array([0.1, 0.2, 0.3, np.inf])] * 5)
    assert found is not None
    low, diverged = found.standing(np.array([0.3, np.inf]))
    assert low < 0.75 < diverged < 1.0


def test_errors_in_units_of_their_own_have_no_levels() -> None:
    generator = np.random.default_rng(0)
    assert levels([10.0**power * (1 + generator.random(30)) for power in range(8)]) is None
    assert levels([generator.random(30) for _ in range(3)]) is None


class TestPromises:
    def test_one_that_is_broken_shuts_the_gate_and_one_that_is_kept_does_not(self) -> None:
        problem = informed(_problem(), histories("matching"), [0.2] * 6)
        assert problem.knowledge is not None
        first = problem.portfolio[0].configuration
        trust = {
            value: gate(problem.knowledge, Memory().history(problem, [Observation(first, value)]))
            for value in (loss(first, 0, 0), 3.0)
        }
        assert list(trust.values()) == [1.0, 0.0]

    def test_of_another_metric_there_are_none(self) -> None:
        problem = informed(_problem("val_perplexity"), histories("matching"), [0.2] * 6)
        assert problem.knowledge is not None
        observed = Memory().history(problem, [Observation(problem.portfolio[0].configuration, 3.0)])
        assert gate(problem.knowledge, observed) == 1.0

    def test_results_that_were_all_promised_say_little_by_their_order(self) -> None:
        """Given the promised settings turn out good in the opposite order, the histories are still believed."""
        problem = informed(_problem(), histories("matching"), [0.2] * 6)
        assert problem.knowledge is not None
        promised = [dict(zip(SPACE.by_name, values, strict=True)) for values in _PROMISED]
        listed = [one.configuration for one in problem.portfolio]
        for settings, least in ((promised, 0.6), (listed, 0.5)):
            observed = [Observation(one, 0.05 - 0.01 * place) for place, one in enumerate(settings)]
            history = Memory().history(problem, observed)
            assert (problem.knowledge.opinions(history.features)[:, 0] < -1.9).all()
            assert gate(problem.knowledge, history) > least

    def test_one_that_beats_what_was_not_promised_is_kept_after_all(self) -> None:
        """Given a task that is harder than all before, results of which clearly less was thought tell it from a wrong
        promise."""
        problem = informed(_problem(), histories("matching"), [0.2] * 6)
        assert problem.knowledge is not None
        first, plain = problem.portfolio[0].configuration, [SPACE.from_unit([0.05, 0.5, 0.5, x]) for x in (0.2, 0.8)]
        for others, broken in ((8.0, False), (4.0, True)):
            observed = [Observation(first, 6.0), *(Observation(one, others) for one in plain)]
            history = Memory().history(problem, observed)
            assert (problem.knowledge.opinions(history.features)[1:, 0] > 0.0).all()
            found = verdict(problem.knowledge, history)
            assert found.beyond
            assert found.broken == broken

    @pytest.mark.parametrize("values", [(2.0, 3.0, 1.0), (2.0, 1.0, 3.0)])
    def test_results_near_each_other_count_as_one(self, values: tuple[float, float, float]) -> None:
        """Given three results, nineteen more beside the last say next to nothing, for or against."""
        problem = informed(_problem("val_perplexity"), histories("inverted"), [0.2] * 6)
        assert problem.knowledge is not None
        two = [problem.portfolio[0].configuration, SPACE.from_unit([0.9, 0.9, 0.9, 0.9])]
        gates = []
        for count in (1, 20):
            near = [SPACE.from_unit([0.6 + 0.001 * number, 0.9, 0.1, 0.9]) for number in range(count)]
            told = [*values[:2], *[values[2]] * count]
            observed = [Observation(one, value) for one, value in zip([*two, *near], told, strict=True)]
            gates.append(gate(problem.knowledge, Memory().history(problem, observed)))
        assert gates[1] == pytest.approx(gates[0], abs=0.05)
