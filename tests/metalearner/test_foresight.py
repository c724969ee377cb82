"""What to use before any trial has run: ranked, with honest intervals and an honest confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from foretune.metrics import Goal
from foretune.parameters import Float
from foretune.spaces import Space
from metalearner import Confidence, Task, TaskHistory, fit, foresee, listen
from tests.metalearner.test_portfolio import PROBLEM, TASK, history, loss


def test_the_same_data_tells_the_value_and_is_trusted() -> None:
    found, confidence = foresee(PROBLEM, TASK, [history(0, trials=60)], [1.0], 3)
    assert confidence is Confidence.HIGH
    assert len(found) == 3
    for one in found:
        assert one.predicted is not None
        assert one.predicted.low <= one.predicted.median <= one.predicted.high
    first = found[0]
    assert first.predicted is not None
    assert first.predicted.low <= loss(first.item.configuration) <= first.predicted.high
    assert first.predicted.median == pytest.approx(min(o.predicted.median for o in found if o.predicted), abs=0.1)


def test_where_all_that_is_known_of_a_space_is_bad_nothing_is_foreseen() -> None:
    low = replace(PROBLEM, space=Space.of(Float("learning_rate", 1e-8, 2e-5, log=True)))
    assert foresee(low, TASK, [history(0)], [1.0], 3) == ([], Confidence.NONE)


def test_intervals_of_unseen_tasks_hold_the_outcome_about_as_often_as_they_say() -> None:
    """Given 30 tasks of a family and seven others to fit on each time, 80 % intervals cover most outcomes."""
    generator = np.random.default_rng(5)
    hits = []
    for task in range(30):
        shifts = generator.normal(0.0, 0.3, size=8)
        others = [
            replace(history(100 * task + n, lambda c, s=float(shift): loss(c, s)), task=replace(TASK, dataset=f"d{n}"))  # type: ignore[misc]
            for n, shift in enumerate(shifts[1:])
        ]
        found, _ = foresee(PROBLEM, replace(TASK, dataset="new"), others, [0.8] * 7, 1, fit(others))
        assert found[0].predicted is not None
        outcome = loss(found[0].item.configuration, float(shifts[0]))
        hits.append(found[0].predicted.low <= outcome <= found[0].predicted.high)
    assert 0.7 <= np.mean(hits) <= 1.0


def test_values_turn_with_the_goal() -> None:
    other = history(0)
    upwards = TaskHistory(
        other.reference,
        Task("accuracy", Goal.MAXIMIZE, "dst_1", "mlp"),
        other.space,
        other.columns,
        [None if value is None else 1.0 - value for value in other.values],
    )
    problem = replace(PROBLEM, goal=Goal.MAXIMIZE)
    (down,), _ = foresee(PROBLEM, TASK, [other], [1.0], 1)
    (up,), _ = foresee(problem, upwards.task, [upwards], [1.0], 1)
    assert up.item.configuration == down.item.configuration
    assert up.predicted is not None
    assert down.predicted is not None
    assert up.predicted.low == pytest.approx(1.0 - down.predicted.high)
    assert up.predicted.median == pytest.approx(1.0 - down.predicted.median)


def test_a_share_stays_a_share() -> None:
    """Given a metric that lay in [0, 1] in every trial, no interval leaves it."""
    task = Task("accuracy", Goal.MAXIMIZE, "dst_1", "mlp")
    other = history(3, lambda c: 1.0 / (1.0 + 0.01 * loss(c)))
    problem = replace(PROBLEM, goal=Goal.MAXIMIZE)
    found, _ = foresee(problem, task, [replace(other, task=task)], [1.0], 5)
    for one in found:
        assert one.predicted is not None
        assert 0.0 <= one.predicted.low <= one.predicted.median <= one.predicted.high <= 1.0


def test_a_value_beyond_all_reason_leaves_finite_intervals() -> None:
    poisoned = history(0, lambda c: -1e308 if float(str(c["learning_rate"])) > 0.3 else loss(c))
    found, _ = foresee(PROBLEM, TASK, [poisoned], [1.0], 5)
    for one in found:
        assert one.predicted is not None
        assert np.isfinite([one.predicted.low, one.predicted.median, one.predicted.high]).all()


def test_other_metrics_and_a_single_other_task_tell_no_value() -> None:
    for task, weight in ((Task("other", Goal.MINIMIZE, "dst_1", "mlp"), 1.0), (replace(TASK, dataset="x"), 0.8)):
        found, confidence = foresee(PROBLEM, task, [history(0)], [weight], 2)
        assert [one.predicted for one in found] == [None, None]
        assert confidence is (Confidence.HIGH if weight == 1.0 else Confidence.LOW)


def test_without_a_usable_history_there_is_no_confidence() -> None:
    assert foresee(PROBLEM, TASK, [], [], 3) == ([], Confidence.NONE)
    assert foresee(PROBLEM, TASK, [history(0, lambda c: None)], [1.0], 3) == ([], Confidence.NONE)
    noise = history(0, lambda c: float(np.random.default_rng(int(1e6 * float(str(c["learning_rate"])))).random()))
    _, confidence = foresee(PROBLEM, replace(TASK, dataset="x"), [noise], [0.2], 3)
    assert confidence is Confidence.LOW


def shifted(order: Sequence[int]) -> list[TaskHistory]:
    """Thirty tasks of a family, each with its optimum a little further up."""
    return [
        replace(history(n, lambda c, s=0.1 * n - 0.6: loss(c, s)), task=replace(TASK, dataset=f"d{n}"))  # type: ignore[misc]
        for n in order
    ]


@pytest.mark.parametrize(
    ("dataset", "weights", "expected"),
    [
        (
            "new",
            [0.8 - 0.01 * abs(n - 8) for n in range(30)],
            [(0.00809272968, 110, 0.178566441, 0.858989711, 1.72583604, ("exp_6", "exp_9", "exp_4"))],
        ),
        (
            "d20",
            [1.0 if n == 20 else 0.5 for n in range(30)],
            [
                (0.0871360708, 162, 0.0, 0.657750199, 1.88156107, ("exp_20", "exp_18", "exp_25")),
                (0.241064531, 147, 0.0, 0.518964884, 1.92879781, ("exp_20", "exp_23", "exp_25")),
            ],
        ),
    ],
)
def test_what_is_foreseen_stays_what_it_was(
    dataset: str, weights: list[float], expected: list[tuple[float, int, float, float, float, tuple[str, ...]]]
) -> None:
    """The numbers of an earlier version: faster is no other answer. `python -m pytest -vv` shows the new ones."""
    found, _ = foresee(PROBLEM, replace(TASK, dataset=dataset), shifted(range(30)), weights, len(expected))
    said = []
    for one in found:
        configuration, predicted = one.item.configuration, one.predicted
        assert predicted is not None
        said.append(
            (
                pytest.approx(configuration["learning_rate"], rel=1e-7),
                configuration["width"],
                *(pytest.approx(value, rel=1e-7) for value in (predicted.low, predicted.median, predicted.high)),
                tuple(evidence.history for evidence in one.item.evidence),
            )
        )
    assert expected == said


def test_what_was_worked_out_ahead_changes_no_answer() -> None:
    weights = [0.8 - 0.01 * n for n in range(30)]
    fresh, known = shifted(range(30)), shifted(range(30))
    model = fit(fresh[:5])
    assert list(listen(PROBLEM, known, model)) == known
    assert all(one.views for one in known)
    task = replace(TASK, dataset="new")
    assert foresee(PROBLEM, task, known, weights, 5, model) == foresee(PROBLEM, task, fresh, weights, 5, model)


def test_among_equals_the_names_decide_who_is_heard() -> None:
    """Given thirty histories that are all as like, the same twenty are heard in whatever order they come."""
    answers = [foresee(PROBLEM, TASK, shifted(order), [0.5] * 30, 5) for order in (range(30), range(29, -1, -1))]
    assert answers[0] == answers[1]
