"""What a model would have recommended, and when it may replace another."""

from __future__ import annotations

import numpy as np
import pytest

from metalearner import FittedModel
from metalearner.replaying import Replay, refusal, replay
from tests.metalearner.wrong_histories import histories


def _replay(model: float, random: float = 0.5, count: int = 8) -> Replay:
    generator = np.random.default_rng(0)

    def around(mean: float) -> dict[str, float]:
        return {f"his_{number}": mean + 0.02 * float(generator.standard_normal()) for number in range(count)}

    return Replay(around(model), around(random), around(random))


def test_histories_that_are_alike_rank_each_others_trials_far_better_than_chance() -> None:
    told = histories("matching")
    found = replay(told, range(len(told)), FittedModel())
    assert set(found.model) == {one.reference for one in told}
    assert found.means()["model"] < 0.5 * found.means()["random"]


def test_those_of_which_nobody_can_tell_are_left_out() -> None:
    assert replay(histories("matching")[:1], [0], FittedModel()).model == {}
    told = [*histories("one_trial")[:1], *histories("matching")]
    assert told[0].reference not in replay(told, [0], FittedModel()).model


def test_chance_is_the_mean_over_all_orders() -> None:
    (history,) = histories("matching")[:1]
    losses = np.sort(history.losses)
    clipped = np.clip((losses - losses[0]) / (losses[len(losses) // 2] - losses[0]), 0.0, 1.0)
    generator = np.random.default_rng(1)
    expected = np.mean(
        [np.minimum.accumulate(generator.choice(clipped, 3, replace=False)).mean() for _ in range(20_000)]
    )
    found = replay(histories("matching"), [0], FittedModel())
    assert found.random[history.reference] == pytest.approx(expected, abs=0.05)


class TestRefusal:
    def test_one_that_is_as_good_is_used(self) -> None:
        assert refusal(_replay(0.1), _replay(0.1)) is None
        assert refusal(_replay(0.05), _replay(0.1)) is None
        assert refusal(_replay(0.1), None) is None

    def test_one_that_is_worse_is_not(self) -> None:
        assert str(refusal(_replay(0.3), _replay(0.1))).startswith("worse than the model in use: regret 0.3")
        assert str(refusal(_replay(0.7), None)).startswith("worse than choosing at random: regret 0.7")

    def test_of_a_few_histories_nobody_can_tell(self) -> None:
        assert refusal(_replay(0.9, count=3), _replay(0.1, count=3)) is None
