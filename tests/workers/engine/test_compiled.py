"""The compiled perceptrons: their formulas against autograd in float64, and their curves against the plain loop."""

import math
import random

import numpy as np
import pytest
import torch
from numba import njit
from scipy.special import log_softmax
from torch.nn import functional as F

from foretune.wire.datasets import Task
from workers.engine import Checkpoint, compiled, compiled_mlp, optimizers
from workers.engine.compiled import Compiled, can_compile
from workers.engine.device_data import on_device
from workers.engine.housing import Housing
from workers.engine.plain_loop import PlainLoop
from workers.engine.settings import TrainingSettings
from workers.engine.slot import Slot
from workers.networks.dropout import set_noise
from workers.networks.reading import read_config

EXPONENTIAL_ULPS = 4
"""What the kernel's exponential may be off, in units of the last place of float32."""
TOLERANCE = 5e-6
"""Between the kernel in float64, whose exponential is that of float32, and autograd."""
CURVE_TOLERANCE = 1e-4
"""Between a compiled curve and that of the plain loop, after two epochs in float32."""

SHAPES = [
    ("mlp-tabular", {"width": 16, "activation": "gelu"}),
    ("mlp-tabular", {"width": 75, "depth": 1, "activation": "tanh", "dropout": 0.0}),
    ("mlp-tabular", {"width": 130, "depth": 3, "activation": "silu", "batch_size": 7}),
    ("mlp-tabular", {"depth": 0}),
    ("mlp-tabular", {"width": 1, "activation": "relu", "dropout": 0.0}),
    ("mlp-regression", {"width": 17, "activation": "silu", "batch_size": 30, "label_smoothing": 0.0}),
    ("mlp-regression", {"width": 40, "batch_size": 1, "label_smoothing": 0.0, "activation": "tanh"}),
]


@njit
def exponentials(x, out):
    for i in range(len(x)):
        out[i] = compiled_mlp._exp(x[i])


def test_the_exponential_is_numpys_but_for_rounding():
    x = np.linspace(-86, 87, 200_001).astype(np.float32)
    found = np.empty_like(x)
    exponentials(x, found)
    expected = np.exp(x.astype(np.float64))
    assert np.max(np.abs(found / expected - 1.0)) < EXPONENTIAL_ULPS * 2.0**-23

    # Beyond it is as small or as large as can be, and NaN stays
    exponentials(np.array([-math.inf, -1e30, math.inf, math.nan], dtype=np.float32), found)
    assert 0.0 <= found[1] == found[0] < 1e-37
    assert found[2] > 1e37
    assert math.isnan(found[3])


class Doubled:
    """A trial's compiled kernel and its module, both in float64."""

    def __init__(self, problem, change, optimizer):
        data = on_device(problem.data, torch.device("cpu"))
        change = {
            "optimizer": optimizer,
            "epsilon": 1e-3,
            "weight_decay": 0.05,
            "gradient_clip": 0.5,
            "label_smoothing": 0.1,
            **change,
        }
        self.slot = Slot(problem.network, data, problem.spec(**change), None, None)
        self.slot.begin_epoch()
        self.way = Compiled(self.slot)
        self.way.bind([self.slot])
        self.way.begin_epochs([self.slot])
        self.module = self.slot.module.double().train()
        self.settings = read_config(TrainingSettings, self.slot.values)
        self.weights = self.slot.flat.weights.double()
        self.gradient = torch.zeros_like(self.weights)
        self.state = optimizers.initial_state(optimizer, self.weights)
        for name in ("_x", "_y", "_val_x", "_val_y"):
            setattr(self.way, name, getattr(self.way, name).astype(np.float64))
        moments = [vector.numpy() for vector in self.state.values()]
        self.way._member = compiled_mlp.Member(
            self.weights.numpy(), self.gradient.numpy(), moments[0], moments[-1], np.zeros(len(self.way._room))
        )

    def update(self, number):
        """One update by the kernel; its loss."""
        self.slot.update = number - 1
        (loss,) = self.way.step([self.slot]).flatten().tolist()
        return loss

    def outputs(self, x):  # (B, F) -> (B, K)
        return self.module(x[:, : self.slot.data.prepared.input_shape[0]])

    def reference(self, number):
        """The loss of the same rows by the module; its parameters then hold their derivatives."""
        slot = self.slot
        slot.update = number - 1
        set_noise(slot.dropouts, slot.noise)
        inputs, targets = slot.batches.batch(number - 1)
        self.module.zero_grad()
        outputs = self.outputs(inputs.double())
        if slot.data.prepared.task is Task.REGRESSION:
            loss = F.mse_loss(outputs.squeeze(-1), targets.double())
        else:
            loss = F.cross_entropy(outputs, targets, label_smoothing=self.settings.label_smoothing)
        loss.backward()
        return float(loss.detach())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("name", "change"), SHAPES, ids=str)
def test_updates_in_float64_are_those_of_autograd(named_problem, name, change, optimizer, monkeypatch):
    # Given a perceptron's kernel, one update a call, and its module
    monkeypatch.setattr(compiled, "_OPERATIONS_AT_ONCE", 1.0)
    both = Doubled(named_problem(name), change, optimizer)
    layout = both.slot.flat.layout
    packed = layout.pack(both.weights)
    torch.nn.utils.vector_to_parameters(packed.clone(), both.module.parameters())
    theirs = optimizers.initial_state(optimizer, packed)
    gradient = torch.zeros_like(packed)
    apply = optimizers.updater(packed, gradient, theirs, both.settings)

    # When both make the same updates
    for number in range(1, 4):
        expected = both.reference(number)
        found = both.update(number)
        derivatives = torch.cat([parameter.grad.flatten() for parameter in both.module.parameters()])
        clipped = derivatives * min(1.0, both.settings.gradient_clip / (float(derivatives.norm()) + 1e-6))
        gradient.copy_(derivatives)
        apply(float(both.way._rates[number - 1]), number)
        torch.nn.utils.vector_to_parameters(packed.clone(), both.module.parameters())

        # Then losses, derivatives and weights are equal to the precision of the exponential
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=1e-7)
        scale = max(1e-3, float(clipped.abs().max()))
        torch.testing.assert_close(layout.pack(both.gradient), clipped, rtol=0.0, atol=TOLERANCE * scale)
        torch.testing.assert_close(layout.pack(both.weights), packed, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["mlp-tabular", "mlp-regression"])
def test_the_sums_of_an_evaluation_are_those_of_the_outputs(named_problem, name):
    # Given a perceptron in float64, of whose validation rows a few are computed at once
    both = Doubled(named_problem(name), {"activation": "gelu", "width": 33}, "sgd")
    way = both.way
    found = compiled_mlp.evaluate(way._net, way._member, way._val_x, way._val_y, compiled._NOTHING_DROPPED, 32)

    # Then the sums are those of the module's outputs
    with torch.no_grad():
        outputs = both.module.eval()(both.slot.data.val_x.double()).numpy()
    if way._net.classes:
        labels = way._val_y.astype(int)
        likelihood = log_softmax(outputs, axis=1)[np.arange(len(outputs)), labels].sum()
        expected = (-likelihood, (outputs.argmax(1) == labels).sum())
    else:
        errors = outputs[:, 0] - way._val_y
        expected = (np.square(errors).sum(), np.abs(errors).sum())
    assert found == pytest.approx(expected, rel=TOLERANCE)


def train(problem, specs, finish, curve_of, choose=None):
    engine = problem.engine(capacity=len(specs), precision="float32")
    if choose is not None:
        engine._housing = Housing(engine._data, choose)
    for spec in specs:
        engine.admit(spec)
    return {name: curve_of(reports) for name, reports in finish(engine).items()}


@pytest.mark.parametrize(("name", "change"), SHAPES, ids=str)
def test_company_changes_no_bit_and_the_plain_loop_agrees(named_problem, finish, curve_of, name, change):
    # Given trials that differ in their optimizers and seeds
    problem, draws = named_problem(name), random.Random(name)
    specs = [
        problem.spec(
            f"t{seed}",
            seed=seed,
            max_epochs=2,
            **{"optimizer": optimizer, "gradient_clip": draws.choice([0.0, 0.5]), "learning_rate": 3e-3, **change},
        )
        for seed, optimizer in enumerate(("sgd", "adam", "adamw"))
    ]

    # When they train together, alone, and by the plain loop
    together = train(problem, specs, finish, curve_of)
    alone = {}
    for spec in specs:
        alone |= train(problem, [spec], finish, curve_of)
    loop = train(problem, specs, finish, curve_of, lambda slot: PlainLoop())

    # Then
    assert together == alone
    for trial, expected in loop.items():
        for (_, ours), (_, theirs) in zip(together[trial], expected, strict=True):
            assert ours == pytest.approx(theirs, rel=CURVE_TOLERANCE, abs=CURVE_TOLERANCE)


def test_frozen_in_the_middle_of_epochs_it_gives_the_same_curve(named_problem, finish, curve_of, monkeypatch):
    # Given a curve, and calls of one update each
    problem = named_problem("mlp-tabular")
    spec = problem.spec(max_epochs=3, optimizer="adamw", width=24)
    expected = train(problem, [spec], finish, curve_of)["trial"]
    monkeypatch.setattr(compiled, "_OPERATIONS_AT_ONCE", 1.0)

    # When it is frozen after every one
    reports, frozen, thaws = [], None, 0
    while True:
        engine = problem.engine()
        engine.admit(spec, frozen)
        if not engine.live:
            break
        reports += engine.advance(timeout_s=0.0)
        frozen, thaws = Checkpoint.from_bytes(engine.snapshot("trial").to_bytes()), thaws + 1

    # Then
    assert curve_of(reports) == expected
    assert thaws > len(expected)


def test_a_fresh_process_gives_the_same_bits(named_problem, finish, curve_of, in_fresh_process):
    problem = named_problem("mlp-tabular")
    expected = train(problem, [problem.spec(width=40, activation="gelu")], finish, curve_of)["trial"]
    found = in_fresh_process(
        "import json, runpy, sys\n"
        "tools = runpy.run_path(sys.argv[1])\n"
        "problem = tools['problem_named']('mlp-tabular')\n"
        "engine = problem.engine(precision='float32')\n"
        "engine.admit(problem.spec(width=40, activation='gelu'))\n"
        "print(json.dumps(tools['curve'](tools['run_to_end'](engine)['trial'])))\n"
    )
    assert found == [[epoch, metrics] for epoch, metrics in expected]


def test_networks_that_only_look_like_perceptrons_are_not_compiled(named_problem):
    # Given a slot whose module computes something else
    problem = named_problem("mlp-tabular")
    slot = Slot(problem.network, on_device(problem.data, torch.device("cpu")), problem.spec(), None, "float32")
    assert can_compile(slot)

    class Doubling(type(slot.module)):
        def forward(self, x):
            return 2.0 * super().forward(x)

    slot.module.__class__ = Doubling

    # Then it is not taken for a perceptron
    assert not can_compile(slot)


def test_what_cannot_be_kept_on_disk_is_compiled_all_the_same():
    # Given a function of no file, for which there is no folder to keep machine code in
    names = {}
    exec("def doubled(x):\n    return 2 * x", names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(names["doubled"])

    # Then it is compiled
    found = compiled_mlp._compiled(names["doubled"])
    assert found(21) == 42
    assert found.signatures
