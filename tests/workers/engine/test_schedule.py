"""The learning rate of every single update."""

import pytest
import torch
from torch import nn

from foretune.parameters import Float
from foretune.schedules import CONSTANT, LearningRateSchedule, ScheduleShape
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.datasets.prepare import PreparedData
from workers.engine import Engine, TrialSpec
from workers.networks import Network

EPOCHS, ROWS, BATCH = 5, 70, 8
UPDATES = EPOCHS * 9  # ceil(70 / 8) an epoch


class Indifferent(nn.Module):
    """A network whose loss does not depend on its weight, which therefore changes by weight decay alone."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (x[:, :1] + 1.0) * (self.weight * 0.0)


NETWORK = Network(
    name="indifferent",
    description="for this test",
    tasks=(Task.REGRESSION,),
    views=("tabular",),
    space=Space.of(Float("learning_rate", 1e-4, 1.0, log=True)),
    build=lambda configuration, shape: Indifferent(),
    defaults={},
)
DATA = PreparedData(
    key="zeros",
    task=Task.REGRESSION,
    view="tabular",
    train_x=torch.zeros(ROWS, 1),
    train_y=torch.zeros(ROWS),
    val_x=torch.zeros(4, 1),
    val_y=torch.zeros(4),
    input_shape=(1,),
    output_size=1,
)


def applied_learning_rates(schedule: LearningRateSchedule, optimizer: str) -> list[float]:
    """What each update really used: AdamW's weights shrink by the factor 1 - lr * wd, SGD's too without momentum."""
    configuration = {"optimizer": optimizer, "weight_decay": 1.0, "momentum": 0.0, "batch_size": BATCH}
    engine = Engine(NETWORK, DATA, "cpu")
    engine.admit(TrialSpec("trial", configuration, schedule, EPOCHS, seed=0))
    rates, weight = [], 1.0
    while engine.live:
        engine.advance(timeout_s=0.0)  # one update
        after = engine.snapshot("trial").weights["weight"].item()
        rates.append(1.0 - after / weight)
        weight = after
    return rates


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "shape",
    [
        CONSTANT,
        ScheduleShape(),
        ScheduleShape(0.1, 0.3, 2.0, 0.1),
        ScheduleShape(0.2, 0.0, 0.5, 0.0),
        ScheduleShape(0.0, 0.5, 4.0, 0.3),
    ],
)
def test_each_update_uses_the_learning_rate_of_the_schedule(shape, optimizer):
    # Given a schedule
    schedule = LearningRateSchedule(0.25, shape)

    # When a trial is trained update by update
    rates = applied_learning_rates(schedule, optimizer)

    # Then every update used the schedule's value for its number
    assert len(rates) == UPDATES
    assert rates == pytest.approx([schedule.learning_rate(k, UPDATES) for k in range(UPDATES)], abs=2e-7)


def test_the_reported_learning_rate_is_that_of_the_epochs_last_update():
    schedule = LearningRateSchedule(0.25, ScheduleShape())
    engine = Engine(NETWORK, DATA, "cpu")
    engine.admit(TrialSpec("trial", {"batch_size": BATCH}, schedule, EPOCHS, seed=0))
    reported = []
    while engine.live:
        reported += [report.metrics["learning_rate"] for report in engine.advance()]
    assert reported == [schedule.learning_rate(9 * epoch + 8, UPDATES) for epoch in range(EPOCHS)]
