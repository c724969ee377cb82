"""Trials beyond hope."""

import math

import pytest
import torch

from workers.engine import FailureKind
from workers.engine.device_data import on_device
from workers.engine.divergence import EXPLOSION_FACTOR, DivergenceMonitor
from workers.engine.population import Population
from workers.engine.slot import Slot
from workers.engine.way import StepFailed


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("learning_rate", [1e5, 1e9, 1e12])
def test_an_absurd_learning_rate_is_found_out_within_the_first_epoch(problem, finish, learning_rate, optimizer):
    # Given a learning rate beyond all reason, and no clipping that would hide it
    engine = problem.engine()
    engine.admit(
        problem.spec(max_epochs=5, learning_rate=learning_rate, optimizer=optimizer, gradient_clip=0.0, batch_size=8)
    )

    # When it is trained
    reports = finish(engine)["trial"]

    # Then it either diverged early with epoch, update and reason, or trained on with finite numbers
    last = reports[-1]
    assert last.finished
    if last.failure is None:
        assert all(math.isfinite(value) for report in reports for value in report.metrics.values())
    else:
        assert last.failure_kind is FailureKind.DIVERGED
        assert last.failure.startswith(f"diverged at epoch {last.epoch}, update ")
        assert "loss is" in last.failure


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_exploding_mlp_stops_inside_its_first_epoch(named_problem, finish, optimizer):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec(max_epochs=5, learning_rate=1e9, optimizer=optimizer, batch_size=8))
    (report,) = finish(engine)["trial"]
    assert report.epoch == 1
    update = int(report.failure.split("update ")[1].split(":")[0])
    assert update < 15  # of 15 an epoch


def test_nan_and_infinity_are_named():
    monitor = DivergenceMonitor(trivial_loss=2.3)
    assert monitor.problem_with(2.2) is None
    assert monitor.problem_with(math.nan) == "is NaN"
    assert monitor.problem_with(math.inf) == "is infinite"


def test_a_spike_is_forgiven_and_an_explosion_is_not():
    monitor = DivergenceMonitor(trivial_loss=2.3)
    assert monitor.problem_with(4.0) is None
    assert monitor.problem_with(100 * 4.0) is None
    assert monitor.problem_with(1.01 * EXPLOSION_FACTOR * 4.0) is not None


def test_a_lucky_first_batch_does_not_lower_the_bound():
    monitor = DivergenceMonitor(trivial_loss=2.3)
    monitor.problem_with(1e-9)
    assert monitor.problem_with(1_000.0) is None


def test_an_outlier_among_regression_targets_is_no_explosion(named_problem, finish):
    # Given targets of which one lies forty standard deviations out
    from dataclasses import replace

    problem = named_problem("mlp-regression")
    targets = problem.data.train_y.clone()
    targets[3] = 40.0
    data = replace(problem.data, train_y=targets)
    engine = type(problem)(problem.network, data, problem.configuration).engine()

    # When a trial sees it in a batch of its own
    engine.admit(problem.spec(max_epochs=2, batch_size=1, learning_rate=1e-4))

    # Then it trains to the end
    assert finish(engine)["trial"][-1].failure is None


class FailingAfterNan:
    """A way whose first step gives NaN to one member, and whose others fail."""

    name = "failing"

    def __init__(self):
        self.steps = 0

    def bind(self, members):
        pass

    def begin_epochs(self, members):
        pass

    def step(self, members):
        self.steps += 1
        if self.steps > 1:
            raise StepFailed("of no memory")
        return torch.tensor([[1.0, math.nan]])


def test_a_member_that_diverged_before_a_step_failed_is_reported(problem):
    # Given two members in a population whose second step fails
    population = Population(FailingAfterNan(), None)
    data = on_device(problem.data, torch.device("cpu"))
    slots = [Slot(problem.network, data, problem.spec(name), None, None) for name in ("calm", "wild")]
    for slot in slots:
        population.join(slot)

    # When they train
    (end,) = population.advance(None)

    # Then the loss that was not read yet tells who is out, and the failure comes at the next call
    assert end.slot is slots[1]
    assert end.failure == "diverged at epoch 1, update 1: loss is NaN"
    assert population.members == [slots[0]]
    with pytest.raises(StepFailed):
        population.advance(None)
