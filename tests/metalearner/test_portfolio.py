"""The portfolio: right histories help at once, wrong ones spoil a handful of proposals and no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int
from foretune.spaces import Configuration, Space
from metalearner import (
    Memory,
    Observation,
    PortfolioItem,
    Problem,
    Proposal,
    ProposerName,
    Task,
    TaskHistory,
    build_portfolio,
    informed,
    propose,
)
from metalearner.arrays import Array
from metalearner.histories import Source
from metalearner.portfolio import judge, select
from metalearner.values import Origin

SPACE = Space.of(
    Float("learning_rate", 1e-5, 1.0, log=True),
    Int("width", 16, 512, log=True),
    Categorical("optimizer", ["sgd", "adamw", "lion"]),
)
PROBLEM = Problem(SPACE, Goal.MINIMIZE, 10, 100, 0)
TASK = Task("val_loss", Goal.MINIMIZE, "dst_1", "mlp")
DEFAULT: Configuration = {"learning_rate": 0.5, "width": 16, "optimizer": "lion"}


def loss(configuration: Configuration, shift: float = 0.0) -> float:
    """Best at a learning rate of 10^(-2.5 + shift), width 128, adamw."""
    rate = math.log10(float(configuration["learning_rate"]))  # type: ignore[arg-type]
    width = math.log2(float(configuration["width"]))  # type: ignore[arg-type]
    return (rate + 2.5 - shift) ** 2 + 0.1 * (width - 7) ** 2 + (0.0 if configuration["optimizer"] == "adamw" else 0.3)


def history(number: int, outcome: Callable[[Configuration], float | None] = loss, trials: int = 40) -> TaskHistory:
    """Random trials of a task of its own: real histories share no configuration."""
    generator = np.random.default_rng(number)
    configurations = [SPACE.from_unit(point) for point in generator.random((trials, SPACE.dimensions)).tolist()]
    columns = {name: [one[name] for one in configurations] for name in SPACE.by_name}
    return TaskHistory(f"exp_{number}", TASK, SPACE, columns, [outcome(one) for one in configurations])


def _regrets(one: Source, scores: Array) -> Array:
    """What scores stand for in a history: 0 its best trial, 1 its median one and beyond; any shape -> the same."""
    order = np.argsort(one.scores)
    losses = one.losses[order]
    known = np.clip((losses - losses[0]) / (losses[len(losses) // 2] - losses[0]), 0.0, 1.0)
    return np.interp(scores, one.scores[order], known)


def run(problem: Problem, count: int) -> list[Proposal]:
    """One proposal after the other, each told."""
    proposals: list[Proposal] = []
    observations: list[Observation] = []
    memory = Memory()
    for index in range(count):
        (proposal,) = propose(problem, observations, [], 1, index=index, memory=memory)
        SPACE.check(proposal.configuration)
        proposals.append(proposal)
        observations.append(Observation(proposal.configuration, loss(proposal.configuration)))
    return proposals


def primed(histories: list[TaskHistory], **changes: object) -> Problem:
    items = build_portfolio(PROBLEM, histories, [1.0] * len(histories))
    return replace(PROBLEM, portfolio=tuple(items), **changes)  # type: ignore[arg-type]


class TestBuild:
    def test_the_first_setting_is_good_at_once(self) -> None:
        shifted = [history(number, lambda c, s=number * 0.1: loss(c, s)) for number in range(6)]  # type: ignore[misc]
        items = build_portfolio(PROBLEM, shifted, [0.8] * 6)
        random = sorted(loss(SPACE.from_unit(point)) for point in np.random.default_rng(9).random((1000, 3)).tolist())
        assert len(items) == 5
        assert loss(items[0].configuration) < random[30]
        assert min(loss(item.configuration) for item in items) < random[10]
        for item in items:
            SPACE.check(item.configuration)
            assert 0.0 < item.predicted_rank < 0.5
            assert item.evidence
        assert len({repr(item.configuration) for item in items}) == 5

    def test_one_history_gives_different_settings(self) -> None:
        items = build_portfolio(PROBLEM, [history(0)], [1.0])
        assert len({repr(item.configuration) for item in items}) == 5
        best = history(0).best
        assert best is not None
        assert loss(items[0].configuration) <= best + 0.3
        assert [one.history for one in items[0].evidence] == ["exp_0"]
        assert items[0].evidence[0].best == best

    def test_the_settings_cover_histories_that_disagree(self) -> None:
        """Given two groups of tasks with different optima, the list holds a good setting for both."""
        low = [history(number, lambda c: loss(c, -1.5)) for number in range(3)]
        high = [history(number + 3, lambda c: loss(c, 1.5)) for number in range(3)]
        items = build_portfolio(PROBLEM, low + high, [0.5] * 6)
        for shift in (-1.5, 1.5):
            assert min(loss(item.configuration, shift) for item in items) < 0.5

    def test_the_same_data_outweighs_any_number_of_others(self) -> None:
        others = [history(number, lambda c: loss(c, 2.0)) for number in range(1, 30)]
        items = build_portfolio(PROBLEM, [*others, history(0)], [0.6] * len(others) + [1.0])
        assert loss(items[0].configuration) < loss(items[0].configuration, 2.0)

    def test_it_depends_on_its_arguments_alone_and_not_on_their_order(self) -> None:
        histories = [history(number) for number in range(5)]
        weights = [0.2, 0.4, 0.6, 0.8, 1.0]
        items = build_portfolio(PROBLEM, histories, weights)
        assert items == build_portfolio(PROBLEM, histories, weights)
        assert items == build_portfolio(PROBLEM, histories[::-1], weights[::-1])

    def test_histories_by_other_names_give_the_same_settings(self) -> None:
        shifted = [history(number, lambda c, s=number * 0.1: loss(c, s)) for number in range(6)]  # type: ignore[misc]
        renamed = [replace(one, reference=f"other_{5 - number}") for number, one in enumerate(shifted)]
        first, second = (build_portfolio(PROBLEM, some, [0.6] * 6) for some in (shifted, renamed))
        assert [one.configuration for one in first] == [one.configuration for one in second]

    @pytest.mark.parametrize("by_regret", [True, False])
    def test_each_next_setting_lowers_the_mean_most(self, by_regret: bool) -> None:
        """Against drawn numbers: no candidate would make the list better by more than the draws are wrong."""
        shifted = [history(number, lambda c, s=number * 0.2: loss(c, s)) for number in range(4)]  # type: ignore[misc]
        judged = judge(PROBLEM, shifted, [0.5] * 4)
        assert judged is not None
        chosen = select(judged, 3, by_regret=by_regret)
        scores = judged.penalised + 0.5 * np.random.default_rng(0).standard_normal((4000, *judged.penalised.shape))
        if by_regret:
            for position, one in enumerate(judged.sources):
                scores[:, position] = np.log(0.1 + _regrets(one, scores[:, position]))
        reached = np.full(scores.shape[:2], np.inf)
        for place in chosen:
            means = np.einsum("shc,h->c", np.minimum(reached[:, :, None], scores), judged.weights) / len(scores)
            # Settings next to those on the list are none of the candidates any more.
            better = np.flatnonzero(means < means[place] - 0.01)
            features = judged.encoding.features(judged.rows)
            near = [np.linalg.norm(features[better] - features[one], axis=1) < 0.1 for one in chosen]
            assert np.all(np.any(near, axis=0))
            reached = np.minimum(reached, scores[:, :, place])

    def test_where_no_history_is_much_alike_there_are_fewer(self) -> None:
        assert len(build_portfolio(PROBLEM, [history(0)], [0.1])) == 3
        assert build_portfolio(PROBLEM, [history(0)], [0.0]) == []
        assert build_portfolio(PROBLEM, [], []) == []

    def test_where_all_that_is_known_of_a_space_is_bad_nothing_comes_from_it(self) -> None:
        """Given a space that holds only what did worse than the median trial, and no expert."""
        low = Space.of(Float("learning_rate", 1e-8, 2e-5, log=True))
        problem = replace(PROBLEM, space=low)
        assert build_portfolio(problem, [history(0)], [1.0]) == []
        assert informed(problem, [history(0)], [1.0]) == problem


class TestOrder:
    ITEMS = tuple(
        PortfolioItem({"learning_rate": 0.1, "width": width, "optimizer": "sgd"}, (), 0.1) for width in (32, 64, 128)
    )

    @pytest.mark.parametrize(("known", "place"), [(False, 0), (True, 1)])
    def test_the_default_comes_first_unless_the_network_is_known(self, known: bool, place: int) -> None:
        problem = replace(PROBLEM, portfolio=self.ITEMS, defaults=DEFAULT, network_known=known)
        proposals = propose(problem, [], [], 5, index=0)
        origins = [proposal.origin for proposal in proposals]
        expected = [Origin.PORTFOLIO] * 3
        expected.insert(place, Origin.DEFAULT)
        assert origins == [*expected, Origin.QUASIRANDOM]
        assert proposals[place].configuration == DEFAULT
        taken = [proposal for proposal in proposals if proposal.item is not None]
        assert [proposal.configuration for proposal in taken] == [item.configuration for item in self.ITEMS]

    @pytest.mark.parametrize("proposer", ["random", "quasirandom"])
    def test_whoever_asks_for_points_by_chance_gets_them(self, proposer: str) -> None:
        problem = replace(PROBLEM, proposer=ProposerName(proposer))
        with_portfolio = replace(problem, portfolio=self.ITEMS)
        assert propose(with_portfolio, [], [], 5, index=0) == propose(problem, [], [], 5, index=0)

    def test_what_is_running_already_is_not_proposed_again(self) -> None:
        problem = replace(PROBLEM, portfolio=self.ITEMS)
        (proposal,) = propose(problem, [], [self.ITEMS[1].configuration], 1, index=1)
        assert proposal.origin is Origin.QUASIRANDOM


class TestHarm:
    @pytest.mark.parametrize(
        "outcome",
        [
            pytest.param(lambda c: -loss(c), id="inverted"),
            pytest.param(lambda c: float(np.random.default_rng(int(1e6 * c["learning_rate"])).random()), id="shuffled"),
            pytest.param(lambda c: 1.0, id="constant"),
            pytest.param(lambda c: None, id="all failed"),
            pytest.param(lambda c: -1e300 if c["learning_rate"] > 0.3 else loss(c), id="poisoned"),
            pytest.param(lambda c: math.inf, id="infinite"),
        ],
    )
    def test_wrong_histories_spoil_a_handful_of_proposals(
        self, outcome: Callable[[Configuration], float | None]
    ) -> None:
        """Given histories that mislead, what follows the portfolio has found the optimum all the same."""
        problem = primed([history(number, outcome) for number in range(3)])
        proposals = run(problem, 30)
        assert [one.origin for one in proposals[5:]].count(Origin.PORTFOLIO) == 0
        assert min(loss(one.configuration) for one in proposals) < 0.1

    def test_a_look_around_follows_the_portfolio(self) -> None:
        """Given inverted histories, quasi-random points follow, and ten trials are no worse than cold ones."""
        problem = primed([history(number, lambda c: -loss(c)) for number in range(3)])
        proposals = run(problem, 10)
        assert [one.origin for one in proposals[5:8]] == [Origin.QUASIRANDOM] * 3
        cold = min(loss(one.configuration) for one in run(PROBLEM, 10))
        assert min(loss(one.configuration) for one in proposals) <= cold + 0.5

    def test_histories_that_say_nothing_change_nothing(self) -> None:
        silent = [history(0, trials=1), history(1, lambda c: None), history(2, lambda c: 3.0)]
        assert primed(silent) == PROBLEM

    def test_a_replay_needs_the_portfolio_alone(self) -> None:
        problem = primed([history(0)])
        proposals = run(problem, 12)
        observations = [Observation(one.configuration, loss(one.configuration)) for one in proposals]
        for index in (0, 3, 6, 11):
            assert propose(problem, observations[:index], [], 1, index=index)[0] == proposals[index]
