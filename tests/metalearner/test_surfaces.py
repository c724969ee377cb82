"""Response surfaces at common settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from foretune.metrics import Goal
from metalearner.histories import normal_scores
from metalearner.surfaces import correlations, surfaces
from tests.metalearner.tasks_of_families import PROBES, history

GENERATOR = np.random.default_rng(0)
HIDDEN = [np.array(pair) for pair in ((0.2, 0.3), (0.25, 0.3), (0.9, 0.8))]


def test_rank_correlations_are_scipys() -> None:
    scores = GENERATOR.normal(size=(5, 12)).round(1)
    np.testing.assert_allclose(correlations(scores), spearmanr(scores, axis=1).statistic, atol=1e-12)
    assert correlations(np.zeros((2, 4))).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_settings_that_all_ran_are_compared_by_what_came_out() -> None:
    histories = [history(str(number), hidden, GENERATOR) for number, hidden in enumerate(HIDDEN)]
    (found,) = surfaces(histories)
    assert (found.kind, found.members, found.scores.shape) == ("mlp", (0, 1, 2), (3, 24))
    assert found.measured.all()
    values = np.array([one.values for one in histories])
    np.testing.assert_allclose(found.likeness, spearmanr(values, axis=1).statistic, atol=1e-12)
    np.testing.assert_allclose(np.sort(found.scores[0]), np.sort(normal_scores(values[0])), atol=1e-12)
    assert found.likeness[0, 1] > 0.9 > found.likeness[0, 2]


def test_a_setting_that_one_history_lacks_is_told_by_its_own_process() -> None:
    histories = [history(str(number), HIDDEN[0], GENERATOR) for number in range(3)]
    some = PROBES[GENERATOR.random(24) < 0.6]
    others = GENERATOR.random((12, 3))
    histories.append(history("3", HIDDEN[0], GENERATOR, np.concatenate([some, others])))
    (found,) = surfaces(histories)
    assert found.measured.sum(1).tolist() == [24, 24, 24, len(some)]
    assert found.likeness[0, 3] > 0.8


def test_histories_that_share_no_setting_are_compared_through_their_processes() -> None:
    histories = [
        history(str(number), hidden, GENERATOR, GENERATOR.random((40, 3))) for number, hidden in enumerate(HIDDEN)
    ]
    (found,) = surfaces(histories)
    assert not found.measured.any()
    assert found.likeness[0, 1] > 0.8
    assert found.likeness[0, 1] > found.likeness[0, 2] + 0.3


def test_networks_are_kinds_and_what_says_nothing_is_left_out() -> None:
    histories = [history(str(number), HIDDEN[number % 3], GENERATOR) for number in range(8)]
    histories[3:6] = [replace(one, task=replace(one.task, network="cnn")) for one in histories[3:6]]
    histories[6] = replace(histories[6], values=[1.0] * 24)
    histories[7] = replace(histories[7], values=[None] * 24)
    assert [(one.kind, one.members) for one in surfaces(histories)] == [("cnn", (3, 4, 5)), ("mlp", (0, 1, 2))]
    assert surfaces(histories[:2]) == []


@pytest.mark.parametrize("goal", Goal)
def test_the_goal_turns_the_surface_and_diverged_trials_are_worst(goal: Goal) -> None:
    one = history("0", HIDDEN[0], GENERATOR)
    values: list[float | None] = [None if value is None else -goal.sign * value for value in one.values]
    values[5] = None
    turned = replace(one, task=replace(one.task, goal=goal), values=values)
    (found,) = surfaces([one, one, turned])
    keep = np.delete(np.arange(24), found.scores[2].argmax())
    order = found.scores[:, keep].argsort(1)
    assert order[0].tolist() == order[2].tolist()
