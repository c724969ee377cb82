"""What is fitted on histories once: likeness at once, kernels that move between spaces, intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import FeatureLikeness, Task, TaskHistory, fit, foresee
from metalearner.encoding import Encoding
from metalearner.fitted import FittedModel
from metalearner.intervals import Calibration, Forecast, coverage
from metalearner.kernels import HistoryKernel, placed
from metalearner.likeness import feature_distance
from tests.metalearner.test_portfolio import PROBLEM, TASK, history, loss

_VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["image", "text", "table"]))
_FEATURES = st.dictionaries(st.sampled_from(["rows", "classes", "task", "modality", "skew"]), _VALUES)
_TASKS = st.builds(
    Task,
    metric=st.sampled_from(["accuracy", "loss"]),
    goal=st.sampled_from(list(Goal)),
    dataset=st.sampled_from([None, "a", "b"]),
    network=st.sampled_from([None, "mlp", "cnn"]),
    features=_FEATURES,
)


def similarity(task: Task, other: Task) -> float:
    """By hand, for one pair."""
    distance = feature_distance(task.features, other.features)
    near = 0.2 if distance is None else max(0.1, 0.8 * math.exp(-1.5 * distance))
    if task.dataset is not None and task.dataset == other.dataset:
        near = 1.0
    elif None not in (task.kind, other.kind) and task.kind != other.kind:
        near = 0.0
    same_metric = (task.metric, task.goal) == (other.metric, other.goal)
    return near * (1.0 if task.network == other.network else 0.3) * (1.0 if same_metric else 0.7)


@given(_TASKS, st.lists(_TASKS, max_size=6))
def test_many_tasks_at_once_are_as_like_as_one_by_one(task: Task, others: list[Task]) -> None:
    found = FeatureLikeness().weights(task, others)
    assert found == pytest.approx([similarity(task, other) for other in others], rel=1e-9)


def test_to_a_task_without_a_metric_every_metric_speaks() -> None:
    others = [Task(metric, goal, "a", "mlp") for metric, goal in (("accuracy", Goal.MAXIMIZE), ("loss", Goal.MINIMIZE))]
    assert FeatureLikeness().weights(Task("", Goal.MINIMIZE, "a", "mlp"), others).tolist() == [1.0, 1.0]


def test_a_kernel_in_its_own_space_is_itself_and_in_a_wider_one_shorter() -> None:
    space = Space.of(Float("learning_rate", 1e-4, 1e-2, log=True), Float("dropout", 0.0, 0.5))
    own = TaskHistory("exp_1", TASK, space, {"learning_rate": [1e-3], "dropout": [0.1]}, [0.1])
    kernel = HistoryKernel((0.5, 0.8), 1.5, 0.1)
    same = placed(kernel, own, Encoding(space))
    assert same.length_scales == pytest.approx([0.5, 0.8])
    assert (same.scale, same.noise) == pytest.approx((1.5, 0.1))
    wider = Space.of(Float("lr", 1e-6, 1e-2, log=True), Float("dropout", 0.0, 0.5))
    assert placed(kernel, own, Encoding(wider)).length_scales == pytest.approx([0.25, 0.8])


def test_what_a_space_does_not_vary_is_noise_there() -> None:
    space = Space.of(Float("learning_rate", 1e-4, 1e-2, log=True), Float("dropout", 0.0, 0.5))
    own = TaskHistory("exp_1", TASK, space, {"learning_rate": [1e-3], "dropout": [0.1]}, [0.1])
    narrow = Encoding(Space.of(Float("learning_rate", 1e-4, 1e-2, log=True)))
    for length, most in ((0.1, 1.0), (100.0, 1e-3)):
        found = placed(HistoryKernel((0.5, length), 1.0, 0.0), own, narrow)
        assert found.scale + found.noise == pytest.approx(1.0, abs=2e-3)
        assert found.noise <= most
    assert placed(HistoryKernel((0.5, 0.1), 1.0, 0.0), own, narrow).noise > 0.5


@given(st.floats(-50, 50), st.floats(0, 50), st.floats(0, 50), st.floats(-100, 100))
def test_a_residual_says_which_loss_it_was(low: float, up: float, further: float, outcome: float) -> None:
    forecast = Forecast.of(low, low + up, low + up + further)
    residual = forecast.residual(outcome)
    if abs(residual) < 20.0:
        assert forecast.loss(residual) == pytest.approx(outcome, abs=1e-6)


def test_intervals_are_stretched_or_shrunk_until_they_cover_what_they_say() -> None:
    """Given forecasts three times too narrow, or too wide, intervals of unseen outcomes cover 80 % all the same."""
    generator = np.random.default_rng(3)
    for scale in (3.0, 1 / 3):
        known, unseen = (scale * generator.normal(0.0, 1 / 1.2816, size=400) for _ in range(2))
        calibration = Calibration.of(known.tolist())
        assert np.mean([calibration.covers(one) for one in unseen]) == pytest.approx(0.8, abs=0.05)
        assert coverage([[one] for one in known[:100]]) == pytest.approx(0.8, abs=0.1)
    assert coverage([]) is None
    nothing_known = Calibration.of([])
    assert nothing_known.low < -0.9
    assert nothing_known.high > 0.9


def test_fitting_again_works_out_only_what_is_new() -> None:
    histories = [
        replace(history(number, lambda c, s=0.2 * number: loss(c, s)), task=replace(TASK, dataset=f"d{number}"))  # type: ignore[misc]
        for number in range(5)
    ]
    first = fit(histories[1:])
    again = fit(histories, first)
    for one in histories[1:]:
        assert again.kernels[one.reference] is first.kernels[one.reference]
        assert again.residuals[one.reference] is first.residuals[one.reference]
    assert len(again.residuals["exp_0"].other) == 3
    assert again.residuals["exp_0"].same == ()
    assert fit(histories[1:], again) == first
    bounded = fit(histories, most_kernels=2, most_held_out=1)
    assert (set(bounded.kernels), set(bounded.residuals)) == ({"exp_0", "exp_1"}, {"exp_0"})
    assert fit([]) == FittedModel()


def test_the_same_data_are_calibrated_apart() -> None:
    histories = [history(number) for number in range(3)]
    model = fit(histories)
    assert all(len(one.same) == 3 and one.other == () for one in model.residuals.values())
    (found,), _ = foresee(PROBLEM, TASK, histories, [1.0] * 3, 1, model)
    assert found.predicted is not None
    assert found.predicted.low <= loss(found.item.configuration) <= found.predicted.high
