"""Slots: admission, turns, independence, faults."""

import math
import random

import pytest
import torch
from torch import nn

from foretune.errors import Conflict, InvalidConfiguration, NotFound, TrialInfeasible
from foretune.parameters import Float
from foretune.spaces import Space
from foretune.wire.datasets import Task
from workers.engine import Engine, FailureKind, trial_spec
from workers.networks import Network


def network_of(build, name="strange"):
    return Network(
        name=name,
        description="for this test",
        tasks=(Task.CLASSIFICATION, Task.REGRESSION),
        views=("tabular",),
        space=Space.of(Float("learning_rate", 1e-4, 1.0, log=True)),
        build=build,
        defaults={"batch_size": 32},
    )


def test_a_trials_curve_does_not_depend_on_its_neighbours(problem, finish, curve_of):
    # Given trials that differ in seed, optimizer, batch size and learning rate
    changes = {
        "a": {"seed": 1, "optimizer": "sgd"},
        "b": {"seed": 1, "optimizer": "adam", "batch_size": 50},
        "c": {"seed": 2, "optimizer": "adamw", "learning_rate": 0.02, "dropout": 0.4},
        "d": {"seed": 2, "learning_rate": 1e9},
    }
    alone = {}
    for name, change in changes.items():
        engine = problem.engine()
        engine.admit(problem.spec(name, **change))
        alone[name] = curve_of(finish(engine)[name])

    # When they train together, some joining late and one leaving early, with a stranger drawing random numbers
    engine, together = problem.engine(capacity=4), {name: [] for name in changes}
    for name in changes:
        engine.admit(problem.spec(name, **changes[name]))
        torch.rand(7)
        for report in engine.advance():
            together[report.trial_id].append(report)
    for name, reports in finish(engine).items():
        together[name] += reports

    # Then each gives the curve it gives alone
    assert {name: curve_of(reports) for name, reports in together.items()} == alone


def test_every_update_and_every_layer_has_noise_of_its_own(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec(max_epochs=3))
    keys = []
    while engine.live:
        engine.advance()
        keys += map(tuple, engine._slots["trial"].noise_keys().flatten(0, 1).tolist())
    assert len(keys) == len(set(keys)) == 2 * 3 * 4  # layers, epochs, updates


def test_another_seed_gives_another_curve(problem, finish, curve_of):
    curves = []
    for seed in (0, 1):
        engine = problem.engine()
        engine.admit(problem.spec(seed=seed))
        curves.append(curve_of(finish(engine)["trial"]))
    assert curves[0] != curves[1]


def test_slots_take_turns_and_reports_come_epoch_by_epoch(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine(capacity=2)
    engine.admit(problem.spec("a", max_epochs=2))
    engine.admit(problem.spec("b", max_epochs=3))
    seen = []
    while engine.live:
        seen += [(report.trial_id, report.epoch, report.finished) for report in engine.advance()]
    assert seen == [("a", 1, False), ("b", 1, False), ("a", 2, True), ("b", 2, False), ("b", 3, True)]


def test_metrics_are_finite_and_complete(problem, finish):
    from workers.engine import METRICS

    engine = problem.engine()
    engine.admit(problem.spec())
    for report in finish(engine)["trial"]:
        assert set(report.metrics) == set(METRICS[problem.data.task])
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert report.seconds > 0.0


def test_a_full_engine_admits_nobody_until_a_slot_is_released(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine(capacity=1)
    engine.admit(problem.spec("a", max_epochs=1))
    with pytest.raises(Conflict) as full:
        engine.admit(problem.spec("b"))
    assert full.value.code == "no_free_slot"
    with pytest.raises(Conflict) as twice:
        engine.admit(problem.spec("a"))
    assert twice.value.code == "already_admitted"

    # A finished trial keeps its slot, for its last checkpoint, until it is released.
    engine.advance()
    assert (engine.live, engine.held, engine.free) == ((), ("a",), 0)
    assert engine.snapshot("a").position.epoch == 1
    engine.release("a")
    engine.admit(problem.spec("b"))
    assert engine.live == ("b",)


def test_unknown_trials_are_named(named_problem):
    engine = named_problem("mlp-tabular").engine()
    for call in (engine.snapshot, engine.release):
        with pytest.raises(NotFound, match="'nobody'"):
            call("nobody")
    assert engine.advance() == []


def test_wrong_configurations_are_refused_at_admission(named_problem):
    from foretune.schedules import LearningRateSchedule
    from workers.engine import TrialSpec

    problem = named_problem("mlp-tabular")
    schedule = LearningRateSchedule(0.1)
    with pytest.raises(InvalidConfiguration, match="width must lie from 1"):
        problem.engine().admit(TrialSpec("a", {"width": 0}, schedule, 3, seed=0))
    with pytest.raises(InvalidConfiguration, match="did you mean 'width'"):
        problem.engine().admit(TrialSpec("a", {"widht": 8}, schedule, 3, seed=0))
    with pytest.raises(InvalidConfiguration, match="max_epochs"):
        TrialSpec("a", {}, schedule, 0, seed=0)


def test_global_random_state_is_left_alone(named_problem):
    problem = named_problem("mlp-tabular")
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    engine = problem.engine()
    engine.admit(problem.spec())
    engine.advance()
    assert torch.equal(torch.rand(3), expected)


class TorchDropoutNet(nn.Module):
    """What a package may bring: torch's own dropout and batch norm, which draw globally and keep buffers."""

    def __init__(self, shape):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(shape.input_shape[0], 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, shape.output_size)
        )

    def forward(self, x):
        return self.layers(x)


def test_networks_with_torchs_own_dropout_and_batch_norm_resume_bit_for_bit(named_problem, finish, curve_of):
    data = named_problem("mlp-tabular").data
    network = network_of(lambda configuration, shape: TorchDropoutNet(shape))
    spec = trial_spec(network, "trial", {}, max_epochs=6, seed=4)
    whole, first, second = (Engine(network, data, "cpu") for _ in range(3))
    whole.admit(spec)
    first.admit(spec)
    reports = [report for _ in range(3) for report in first.advance()]
    torch.rand(random.Random(0).randint(1, 9))
    second.admit(spec, first.snapshot("trial"))
    reports += finish(second)["trial"]
    assert curve_of(reports) == curve_of(finish(whole)["trial"])


def test_batch_norm_of_one_trial_touches_no_other(named_problem, finish, curve_of):
    # Given trials with running statistics, which are trained by the plain loop
    data = named_problem("mlp-tabular").data
    network = network_of(lambda configuration, shape: TorchDropoutNet(shape))
    specs = [
        trial_spec(network, f"t{seed}", {"batch_size": size, "learning_rate": rate}, max_epochs=3, seed=seed)
        for seed, (size, rate) in enumerate([(32, 0.01), (50, 0.1), (32, 1e9)])
    ]
    alone = {}
    for spec in specs:
        engine = Engine(network, data, "cpu")
        engine.admit(spec)
        alone[spec.trial_id] = curve_of(finish(engine)[spec.trial_id])

    # When they share a device
    engine = Engine(network, data, "cpu", capacity=3)
    for spec in specs:
        engine.admit(spec)

    # Then each gives the curve it gives alone
    assert {name: curve_of(reports) for name, reports in finish(engine).items()} == alone


class Raising(nn.Module):
    def __init__(self, error, shape, calls):
        super().__init__()
        self.error, self.calls = error, calls
        self.linear = nn.Linear(shape.input_shape[0], shape.output_size)

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return self.linear(x)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
            FailureKind.OUT_OF_MEMORY,
            "out of memory",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            FailureKind.OUT_OF_MEMORY,
            "out of memory",
        ),
        (ValueError("a fault in the network"), FailureKind.ERROR, "ValueError"),
    ],
)
def test_a_network_that_raises_fails_its_own_trial_alone(named_problem, finish, curve_of, error, kind, text):
    # Given a network whose second trial raises at its third update
    data = named_problem("mlp-tabular").data
    calls = iter([10**6, 10**6, 2])
    network = network_of(lambda configuration, shape: Raising(error, shape, next(calls)))
    spec = {name: trial_spec(network, name, {}, max_epochs=3, seed=0) for name in ("alone", "beside", "broken")}
    alone = Engine(network, data, "cpu")
    alone.admit(spec["alone"])
    expected = curve_of(finish(alone)["alone"])

    # When it trains beside another
    engine = Engine(network, data, "cpu")
    engine.admit(spec["beside"])
    engine.admit(spec["broken"])
    reports = finish(engine)

    # Then it fails with the reason, and the other one is untouched
    (failed,) = reports["broken"]
    assert (failed.failure_kind, failed.finished, failed.epoch, dict(failed.metrics)) == (kind, True, 1, {})
    assert text in failed.failure
    assert "epoch 1, update 3" in failed.failure
    assert curve_of(reports["beside"]) == expected
    with pytest.raises(TrialInfeasible):
        engine.snapshot("broken")


def test_a_network_that_cannot_be_built_is_refused(named_problem):
    def build(configuration, shape):
        raise ValueError("no such shape")

    network = network_of(build)
    engine = Engine(network, named_problem("mlp-tabular").data, "cpu")
    with pytest.raises(InvalidConfiguration, match="no such shape"):
        engine.admit(trial_spec(network, "a", {}, max_epochs=1, seed=0))


def test_memory_that_runs_out_at_admission_makes_the_trial_infeasible(named_problem):
    def build(configuration, shape):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = network_of(build)
    engine = Engine(network, named_problem("mlp-tabular").data, "cpu")
    with pytest.raises(TrialInfeasible, match="out of memory before epoch 1"):
        engine.admit(trial_spec(network, "a", {}, max_epochs=1, seed=0))
    assert engine.free == engine.capacity


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_resumes_bit_for_bit(named_problem, finish, curve_of, precision):
    problem = named_problem("mlp-tabular")
    spec = problem.spec(max_epochs=8, dropout=0.0)
    whole, first, second = (problem.engine(precision=precision) for _ in range(3))
    whole.admit(spec)
    first.admit(spec)
    for _ in range(4):
        first.advance()
    second.admit(spec, first.snapshot("trial"))
    reports = finish(whole)["trial"]
    assert curve_of(finish(second)["trial"]) == curve_of(reports)[4:]
    assert reports[-1].metrics["train_loss"] < 0.75 * reports[0].metrics["train_loss"]


def test_float16_lowers_its_scale_until_gradients_fit(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine(precision="float16")
    engine.admit(problem.spec(max_epochs=2))
    engine._slots["trial"].scale.scale = 2.0**40
    engine.advance()
    engine.advance()
    frozen = engine.snapshot("trial")
    assert frozen.position.loss_scale < 2.0**40
    assert all(torch.isfinite(tensor).all() for tensor in frozen.weights.values())
