"""Perceptrons whose matrix products are taken in bfloat16: independent of each other, near float32, and only where
a rule of shapes says so."""

import json
import random
from dataclasses import replace

import pytest
import torch

from workers.engine import Checkpoint, compiled, signature
from workers.engine.device import multiplies_bfloat16
from workers.engine.device_data import on_device
from workers.engine.housing import Housing
from workers.engine.pace import size_search
from workers.engine.slot import Slot
from workers.engine.stacked_linear import FullLinear, HalfLinear, full_outputs, half_outputs, is_large
from workers.engine.stacked_mlp import MLPShape

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="needs AVX512_BF16 or AMX")

SHAPES = [
    {"width": 256, "depth": 1},  # reads its inputs in bfloat16
    {"width": 130, "depth": 3, "activation": "gelu"},  # all but the first and the last layer
    {"width": 256, "depth": 2, "activation": "tanh", "batch_size": 60},
]
ROUNDING = 2.0**-8
"""The largest relative error of a number rounded to bfloat16."""
CURVE_TOLERANCE = 0.01
"""Of losses, relative, between bfloat16 and float32 after a few epochs."""
CONVOLUTION_TOLERANCE = 0.05
"""Likewise of convolutional networks, whose activations are rounded as well."""

RESUME = """
import json, runpy, sys
from pathlib import Path
from workers.engine import Checkpoint
names = runpy.run_path(sys.argv[1])
problem, curves = names["problem_named"]("mlp-tabular"), []
for position, shape in enumerate(json.loads(sys.argv[3])):
    engine = problem.engine()
    frozen = Checkpoint.from_bytes(Path(sys.argv[2], str(position)).read_bytes())
    engine.admit(problem.spec(max_epochs=6, **shape), frozen)
    curves.append(names["curve"](names["run_to_end"](engine)["trial"]))
print(json.dumps(curves))
"""


def varied(problem, count, shape, *, epochs=2):
    """Trials of one shape that differ in what else may differ."""
    draws = random.Random(count)
    return [
        problem.spec(
            f"t{position}",
            seed=position,
            max_epochs=epochs,
            **{"batch_size": draws.choice([32, 60, 120]), **shape},
            optimizer=draws.choice(["sgd", "adam", "adamw"]),
            learning_rate=draws.choice([1e-3, 3e-3]),
            dropout=draws.choice([0.0, 0.2]),
            gradient_clip=draws.choice([0.0, 0.5]),
            label_smoothing=draws.choice([0.0, 0.1]),
        )
        for position in range(count)
    ]


def half_engine(problem, capacity):
    return problem.engine(capacity=capacity, precision="bfloat16")


def train(engine, specs, finish, curve_of):
    for spec in specs:
        engine.admit(spec)
    return {name: curve_of(reports) for name, reports in finish(engine).items()}


@needs_bfloat16
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_change_no_bit(named_problem, finish, curve_of, shape):
    # Given trials in bfloat16, of several batch sizes
    problem = named_problem("mlp-tabular")
    specs = varied(problem, 7, shape)
    engine = half_engine(problem, 7)

    # When they train together, and each alone
    together = train(engine, specs, finish, curve_of)
    alone = {}
    for spec in specs:
        alone |= train(half_engine(problem, 1), [spec], finish, curve_of)

    # Then nothing tells the difference
    assert together == alone


@needs_bfloat16
@pytest.mark.parametrize("size", [2, 3, 16, 64])
def test_the_size_of_a_population_changes_no_bit(named_problem, finish, curve_of, size):
    # Given populations of one size, and what their members give alone
    problem = named_problem("mlp-tabular")
    specs = varied(problem, 66 if size == 64 else 17, {"width": 128, "depth": 2, "batch_size": 60}, epochs=1)
    engine = half_engine(problem, len(specs))
    engine.admit(specs[0])
    (found,) = engine._housing._populations.values()
    size_search(found, torch.device("cpu")).__init__((size,), settled=True)
    for spec in specs[1:]:
        engine.admit(spec)
    assert max(len(one.members) for one in engine._housing._populations) == size
    together = {name: curve_of(reports) for name, reports in finish(engine).items()}

    # Then each is the same
    for spec in specs[:: max(1, len(specs) // 8)]:
        assert train(half_engine(problem, 1), [spec], finish, curve_of)[spec.trial_id] == together[spec.trial_id]


@needs_bfloat16
def test_a_fresh_process_resumes_bit_for_bit(named_problem, finish, curve_of, in_fresh_process, tmp_path):
    # Given trials in bfloat16, each beside another, and their checkpoints after two epochs
    problem, expected = named_problem("mlp-tabular"), []
    for position, shape in enumerate(SHAPES):
        engine = half_engine(problem, 2)
        engine.admit(problem.spec(max_epochs=6, **shape))
        engine.admit(problem.spec("beside", max_epochs=6, seed=1, **shape))
        for _ in range(2):
            engine.advance()
        (tmp_path / str(position)).write_bytes(engine.snapshot("trial").to_bytes())
        expected.append(curve_of(finish(engine)["trial"]))

    # When a fresh process resumes them alone, which is told of no precision
    resumed = in_fresh_process(RESUME, str(tmp_path), json.dumps(SHAPES))

    # Then their curves go on as if nothing had happened
    assert resumed == json.loads(json.dumps(expected))


@needs_bfloat16
def test_frozen_after_every_update_it_gives_the_same_curve(named_problem, finish, curve_of):
    problem = named_problem("mlp-tabular")
    spec = problem.spec(max_epochs=2, width=256)
    expected = train(half_engine(problem, 1), [spec], finish, curve_of)["trial"]
    reports, frozen = [], None
    while True:
        engine = half_engine(problem, 1)
        engine.admit(spec, frozen)
        if not engine.live:
            break
        reports += engine.advance(timeout_s=0.0)
        frozen = Checkpoint.from_bytes(engine.snapshot("trial").to_bytes())
    assert curve_of(reports) == expected


@needs_bfloat16
def test_trials_of_either_precision_share_no_population(named_problem, finish, curve_of):
    # Given the same trial frozen in float32 and in bfloat16
    problem = named_problem("mlp-tabular")
    spec = problem.spec(max_epochs=3, width=256, batch_size=120)
    frozen, expected = {}, {}
    for precision in ("float32", "bfloat16"):
        engine = problem.engine(precision=precision)
        engine.admit(spec)
        engine.advance()
        frozen[precision] = engine.snapshot("trial")
        assert frozen[precision].position.precision == precision
        expected[precision] = curve_of(finish(engine)["trial"])

    # When one engine thaws both
    engine = problem.engine(capacity=2, precision="float32")
    for precision, checkpoint in frozen.items():
        engine.admit(replace(spec, trial_id=precision), checkpoint)

    # Then they live apart, and each goes on at its own precision
    assert [len(one.members) for one in engine._housing._populations] == [1, 1]
    assert {name: curve_of(reports) for name, reports in finish(engine).items()} == expected
    assert expected["float32"] != expected["bfloat16"]


@needs_bfloat16
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_curves_stay_near_those_in_float32(named_problem, finish, curve_of, shape):
    problem = named_problem("mlp-tabular")
    specs = varied(problem, 6, shape, epochs=4)
    half = train(half_engine(problem, 6), specs, finish, curve_of)
    full = train(problem.engine(capacity=6, precision="float32"), specs, finish, curve_of)
    for name, expected in full.items():
        for (_, ours), (_, theirs) in zip(half[name], expected, strict=True):
            for metric in ("train_loss", "val_loss"):
                assert ours[metric] == pytest.approx(theirs[metric], rel=CURVE_TOLERANCE)


def test_without_the_instructions_a_trial_goes_on_in_float32(named_problem, finish, curve_of, monkeypatch):
    # Given a trial that was frozen in bfloat16
    problem = named_problem("mlp-tabular")
    spec = problem.spec(max_epochs=4, width=256)
    first = half_engine(problem, 1)
    first.admit(spec)
    first.advance()
    frozen = first.snapshot("trial")

    # When a processor without the instructions resumes it
    for module in (compiled, signature):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    second = problem.engine()
    second.admit(spec, frozen)
    rest = curve_of(finish(second)["trial"])

    # Then it has float32's numbers from there on, near those that it would have had, and still says bfloat16
    full = problem.engine()
    full.admit(spec, replace(frozen, position=replace(frozen.position, precision="float32")))
    assert rest == curve_of(finish(full)["trial"])
    assert second.snapshot("trial").position.precision == "bfloat16"
    for (_, ours), (_, theirs) in zip(rest, curve_of(finish(first)["trial"]), strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=CURVE_TOLERANCE)


@pytest.mark.parametrize(("before", "after"), [(64, 256), (256, 128), (784, 512)])
@pytest.mark.parametrize("members", [1, 3])
def test_a_layer_in_bfloat16_is_one_in_float64_but_for_the_rounding_of_factors(before, after, members):
    # Given the same layer in float64 and with products in bfloat16, its numbers views of longer rows
    draws = torch.Generator().manual_seed(before)
    rows, size = 24, before * after
    weights, gradients = (torch.randn(members, size + 32, generator=draws, dtype=torch.float64) for _ in range(2))
    x, delta = (torch.randn(members, rows, width, generator=draws, dtype=torch.float64) for width in (before, after))
    bias = torch.randn(members, after, generator=draws, dtype=torch.float64)

    def layer(dtype, make):
        weight, gradient = (part.to(dtype)[:, :size].view(members, after, before) for part in (weights, gradients))
        bias_gradient, out = torch.empty(members, after, dtype=dtype), torch.empty(members, rows, after, dtype=dtype)
        below = torch.empty(members, rows, before, dtype=dtype)
        linear = make(weight, bias.to(dtype), gradient, bias_gradient)
        linear.forward(x.to(dtype), out)
        linear.backward(delta.to(dtype), x.to(dtype), below)
        return out, gradient, bias_gradient, below

    # When both go forward and backward
    found = layer(torch.float32, lambda *parts: HalfLinear(rows, *parts))
    expected = layer(torch.float64, FullLinear)

    # Then every result is right to the rounding of two factors and the sum, and the bias's derivative to float32
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= ROUNDING * theirs.norm()
    assert (found[2] - expected[2]).norm() <= 1e-6 * expected[2].norm()
    weight = weights[:, :size].view(members, after, before)
    outputs = half_outputs(weight.float(), bias.float(), x.float())
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, found[0])
    torch.testing.assert_close(full_outputs(weight, bias, x), expected[0])


def test_only_large_layers_are_rounded():
    assert is_large(128, 128)
    assert is_large(64, 256)
    assert not is_large(64, 128)
    assert not is_large(512, 16)  # the head
    assert not is_large(32, 512)


@needs_bfloat16
@pytest.mark.parametrize(
    ("name", "change", "precision"),
    [
        ("mlp-tabular", {"width": 128, "batch_size": 120}, "float32"),
        ("mlp-tabular", {"width": 256, "batch_size": 32}, "float32"),
        ("mlp-tabular", {"width": 320, "batch_size": 120}, "float32"),
        ("mlp-tabular", {"width": 512, "batch_size": 64}, "float32"),
        ("mlp-tabular", {"width": 512, "batch_size": 120}, "bfloat16"),
        ("mlp-tabular", {"width": 512, "depth": 0, "batch_size": 120}, "float32"),
        ("mlp-regression", {"width": 512, "batch_size": 120}, "bfloat16"),
        ("cnn-image", {"width": 32}, "float32"),
        ("cnn-image", {"width": 64, "batch_size": 32}, "bfloat16"),
        ("cnn-large", {"width": 16, "batch_size": 32}, "bfloat16"),
        ("transformer-sequence", {"width": 32}, "float32"),
    ],
)
def test_the_precision_is_a_rule_of_shapes(named_problem, name, change, precision):
    problem = named_problem(name)
    data = on_device(problem.data, torch.device("cpu"))
    slot = Slot(problem.network, data, problem.spec(**change), None, None)
    assert slot.precision == precision
    assert slot.snapshot().position.precision == precision


@needs_bfloat16
def test_large_convolutions_resume_bit_for_bit(named_problem, finish, curve_of):
    # Given a convolutional network in bfloat16, trained without interruption, beside another
    problem = named_problem("cnn-image")
    spec = problem.spec(max_epochs=4, width=64)
    whole = problem.engine(capacity=2)
    whole.admit(spec)
    whole.admit(problem.spec("beside", width=64, seed=1, max_epochs=4))
    assert list(whole._housing._populations.values()) == [None, None]
    expected = curve_of(finish(whole)["trial"])

    # When it is frozen after two epochs, and thawed elsewhere
    first = problem.engine()
    first.admit(spec)
    reports = [report for _ in range(2) for report in first.advance()]
    second = problem.engine()
    second.admit(spec, Checkpoint.from_bytes(first.snapshot("trial").to_bytes()))
    reports += finish(second)["trial"]

    # Then the curve is the same, and near that in float32
    assert curve_of(reports) == expected
    full = problem.engine(precision="float32")
    full.admit(spec)
    for (_, ours), (_, theirs) in zip(expected, curve_of(finish(full)["trial"]), strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=CONVOLUTION_TOLERANCE)
        assert ours != theirs


def test_float32_can_be_demanded(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine(precision="float32")
    engine.admit(problem.spec(width=512, batch_size=120))
    (population,) = engine._housing._populations
    assert population._way.name == "compiled"


def test_a_program_in_bfloat16_runs_on_any_processor(named_problem, finish, curve_of):
    # Given perceptrons that are multiplied in bfloat16 whatever the processor can do
    problem = named_problem("mlp-tabular")

    def sign(slot):
        shape = MLPShape.of(slot.module, slot.data, half=True)
        return signature.Signature(shape, slot.batches.widen(shape.row_multiple))

    engine = problem.engine()
    engine._housing = Housing(engine._data, sign)
    engine.admit(problem.spec(width=128, max_epochs=2))

    # Then they learn
    reports = finish(engine)["trial"]
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"]
