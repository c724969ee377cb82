"""Stacked programs against autograd, in float64: the formulas are the same, not only the rounding."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from foretune.wire.datasets import Task
from workers.engine import optimizers, stacked_loss
from workers.engine.device_data import on_device
from workers.engine.evaluation import training_loss
from workers.engine.layout import layout
from workers.engine.settings import TrainingSettings
from workers.engine.signature import signature_of
from workers.engine.slot import Slot
from workers.engine.stacked_cnn import CNNShape
from workers.engine.stacking import Noise, StackedBatch
from workers.networks.cnn import CNN
from workers.networks.dropout import layer_keys, set_noise
from workers.networks.reading import read_config

MEMBERS, COUNT, STEPS = 3, 13, 5
ACTIVATIONS = [{"activation": name} for name in ("relu", "gelu", "silu", "tanh")]
CASES = [
    *(("mlp-tabular", change) for change in ACTIVATIONS),
    ("mlp-tabular", {"depth": 0}),
    ("mlp-regression", {"width": 21}),
    *(("cnn-image", {"width": 8, "depth": 1, **change}) for change in ACTIVATIONS),
    ("cnn-colours", {"width": 12}),
    ("cnn-large", {"width": 3, "depth": 1}),
    ("gru-sequence", {"width": 18}),
    ("gru-text", {}),
    ("transformer-sequence", {"heads": 3, "width": 20}),
    ("transformer-text", {"depth": 1}),
]


class Bench:
    """Members of one signature in float64, as modules and as rows of a stacked program."""

    def __init__(self, problem, change, optimizer):
        data = problem.data
        double = [part.double() if part.is_floating_point() else part for part in (data.train_x, data.train_y)]
        self.data = on_device(replace(data, train_x=double[0], train_y=double[1]), torch.device("cpu"))
        # A large epsilon, as Adam would blow up the rounding of derivatives that are zero but for rounding.
        spec = {
            "optimizer": optimizer,
            "epsilon": 1e-3,
            "weight_decay": 0.05,
            "gradient_clip": 0.5,
            "label_smoothing": 0.1,
            **change,
        }
        if data.task is Task.REGRESSION:
            spec["label_smoothing"] = 0.0
        slots = [
            Slot(problem.network, self.data, problem.spec(seed=seed, **spec), None, None) for seed in range(MEMBERS)
        ]
        self.settings = read_config(TrainingSettings, slots[0].values)
        self.context = slots[0].context_length
        self.modules = [slot.module.double().train() for slot in slots]
        self.dropouts = [slot.dropouts for slot in slots]
        shape = shape_of(slots[0])
        named = [(name, tuple(parameter.shape)) for name, parameter in self.modules[0].named_parameters()]
        self.layout = layout(named, shape.stored())
        self.weights = torch.zeros(MEMBERS, self.layout.size, dtype=torch.float64)
        self.gradient = torch.zeros_like(self.weights)
        for row, module in zip(self.weights, self.modules, strict=True):
            self.layout.unpack(torch.cat([p.detach().flatten() for p in module.parameters()]), row)
        self.program = shape.program(self.layout, self.data)
        self.program.bind(self.weights, self.gradient)
        self.bucket = slots[0].batches.bucket
        self.starts = len(data.train_x) - 1 - self.context

    def batch(self, number):
        """Different rows for each member, of which only COUNT count, and different noise."""
        draws = torch.Generator().manual_seed(number)
        places = torch.randint(self.starts, (MEMBERS, self.bucket), generator=draws)
        weights = torch.zeros(MEMBERS, self.bucket, dtype=torch.float64)
        weights[:, :COUNT] = 1.0 / COUNT
        keys = [7 * number + member for member in range(MEMBERS)]
        smoothing = torch.full((MEMBERS, 1, 1), self.settings.label_smoothing, dtype=torch.float64)
        return keys, StackedBatch(places, weights, smoothing, self.noise(keys))

    def noise(self, keys):
        layers = len(self.dropouts[0])
        if not layers:
            return None
        first = self.dropouts[0][0]
        constant = (layers, MEMBERS, 1, 1)
        numbers = layer_keys(keys, layers).permute(2, 1, 0).reshape(2, *constant)
        return Noise(numbers, first.threshold.expand(constant), first.scale_bits.expand(constant))

    def reference(self, member, key, places):
        """The loss of one member by its module; its parameters then hold their derivatives."""
        module, data = self.modules[member], self.data
        rows = places[:COUNT]
        if data.is_text:
            windows = data.train_x[rows[:, None] + torch.arange(self.context + 1)]
            x, y = windows[:, :-1], windows[:, 1:]
        else:
            x, y = data.train_x[rows], data.train_y[rows]
        set_noise(self.dropouts[member], key)
        module.zero_grad()
        loss = double_loss(module(x), y, data.prepared.task, self.settings.label_smoothing)
        loss.backward()
        return loss.detach()


def shape_of(slot):
    """Its signature's; also of a convolutional network that the rule for CPUs leaves to the plain loop."""
    return CNNShape.of(slot.module, slot.data) if type(slot.module) is CNN else signature_of(slot).shape


def double_loss(outputs, targets, task, smoothing):
    if task is Task.REGRESSION:
        return F.mse_loss(outputs.squeeze(-1), targets)
    if task is Task.LANGUAGE_MODELLING:
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    return F.cross_entropy(outputs, targets, label_smoothing=smoothing)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("name", "change"), CASES, ids=str)
def test_training_in_float64_is_that_of_autograd(named_problem, name, change, optimizer):
    # Given members as rows of a stacked program and as modules
    bench = Bench(named_problem(name), {"batch_size": 16, **change}, optimizer)
    ours = [
        optimizers.updater(row, gradient, optimizers.initial_state(optimizer, row), bench.settings)
        for row, gradient in zip(bench.weights, bench.gradient, strict=True)
    ]
    packed = [bench.layout.pack(row) for row in bench.weights]
    gradients = [torch.zeros_like(vector) for vector in packed]
    theirs = [
        optimizers.updater(vector, gradient, optimizers.initial_state(optimizer, vector), bench.settings)
        for vector, gradient in zip(packed, gradients, strict=True)
    ]

    # When both make the same updates
    for number in range(1, STEPS + 1):
        keys, batch = bench.batch(number)
        with torch.no_grad():
            losses = bench.program.gradients(batch)
        for member in range(MEMBERS):
            expected = bench.reference(member, keys[member], batch.places[member])
            module = bench.modules[member]
            gradients[member].copy_(torch.cat([p.grad.flatten() for p in module.parameters()]))

            # Then losses, derivatives and weights are equal to float64's precision
            torch.testing.assert_close(losses[member], expected, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(
                bench.layout.pack(bench.gradient[member]), gradients[member], rtol=1e-8, atol=1e-12
            )
            ours[member](0.01, number)
            theirs[member](0.01, number)
            torch.nn.utils.vector_to_parameters(packed[member].clone(), module.parameters())
            torch.testing.assert_close(bench.layout.pack(bench.weights[member]), packed[member], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 10, 16])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_stacked_loss_is_torchs(classes, smoothing):
    # Given logits with padding, of two members whose batches have rows that do not count
    draws = torch.Generator().manual_seed(classes)
    logits = torch.randn(2, 6, 16, generator=draws, dtype=torch.float64)
    targets = torch.randint(classes, (2, 6), generator=draws)
    weights = torch.tensor([[0.25] * 4 + [0.0] * 2, [1.0 / 6] * 6], dtype=torch.float64)
    expected_losses, expected = [], torch.zeros_like(logits)
    for member, count in enumerate((4, 6)):
        rows = logits[member, :count, :classes].clone().requires_grad_()
        loss = F.cross_entropy(rows, targets[member, :count], label_smoothing=smoothing)
        (expected[member, :count, :classes],) = torch.autograd.grad(loss, rows)
        expected_losses.append(loss.detach())

    # When the stacked loss is taken
    factor = torch.full((2, 1, 1), smoothing, dtype=torch.float64) if smoothing else None
    losses, derivatives = stacked_loss.classification(logits, targets, weights, factor, classes)

    # Then it is torch's, and padding gets exactly nothing
    torch.testing.assert_close(losses, torch.stack(expected_losses))
    torch.testing.assert_close(derivatives, expected)
    assert torch.count_nonzero(derivatives[:, :, classes:]) == 0


def test_a_neighbour_that_smooths_changes_no_bit_of_the_loss():
    # Given logits of two members, of which the first does not smooth and has a probability of zero
    draws = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 8, 16, generator=draws)
    logits[0, 0, :2] = torch.tensor([3e38, -3e38])
    targets = torch.randint(10, (2, 8), generator=draws)
    targets[0, 1] = 0
    weights = torch.full((2, 8), 1.0 / 8)
    for first in (0, 1):
        targets[0, 0] = first

        # When the loss is taken of both, and of the first alone
        smoothing = torch.tensor([0.0, 0.1]).view(2, 1, 1)
        losses, derivatives = stacked_loss.classification(logits.clone(), targets, weights, smoothing, 10)
        own = stacked_loss.classification(logits[:1].clone(), targets[:1], weights[:1], None, 10)

        # Then the first has the same bits
        assert torch.equal(losses[:1], own[0])
        assert torch.equal(derivatives[:1], own[1])


def test_nan_of_one_member_stays_with_it(named_problem):
    for name in ("mlp-tabular", "cnn-image", "gru-sequence", "transformer-text"):
        bench = Bench(named_problem(name), {"batch_size": 16}, "sgd")
        _, batch = bench.batch(1)
        with torch.no_grad():
            clean = bench.program.gradients(batch).clone()
            before = bench.gradient.clone()
            bench.weights[1] = torch.nan
            losses = bench.program.gradients(batch)
        assert torch.isnan(losses[1])
        assert torch.equal(losses[[0, 2]], clean[[0, 2]])
        assert torch.equal(bench.gradient[[0, 2]], before[[0, 2]])


def test_the_plain_loss_is_what_the_engine_uses():
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = double_loss(outputs, targets, Task.CLASSIFICATION, 0.1)
    torch.testing.assert_close(training_loss(outputs, targets, Task.CLASSIFICATION, 0.1), expected)
