"""Members of a population: the same numbers whoever sits beside them, and near those of the plain loop."""

import random
from dataclasses import replace

import pytest
import torch

from workers.engine import compiled
from workers.engine.housing import Housing, home_of
from workers.engine.pace import SizeSearch, size_search
from workers.engine.plain_loop import PlainLoop
from workers.engine.signature import Signature, signature_of
from workers.engine.stacked_mlp import MLPShape

OPTIMIZERS = ("sgd", "adam", "adamw")
RELATIVE_TOLERANCE = 1e-4
"""Between the plain loop and a population, after two epochs in float32."""


def mixed_specs(problem, count, draws, *, max_epochs=2, **shared):
    """Trials that differ in everything that may differ within a population."""
    regression = problem.data.output_size == 1
    return [
        problem.spec(
            f"t{position}",
            max_epochs=max_epochs,
            seed=position,
            **shared,
            optimizer=draws.choice(OPTIMIZERS),
            learning_rate=draws.choice([0.003, 0.01]),
            momentum=draws.choice([0.0, 0.9]),
            weight_decay=draws.choice([0.0, 0.1]),
            beta2=draws.choice([0.99, 0.999]),
            dropout=draws.choice([0.0, 0.1, 0.4]),
            gradient_clip=draws.choice([0.0, 0.5]),
            label_smoothing=0.0 if regression else draws.choice([0.0, 0.1]),
        )
        for position in range(count)
    ]


def stacked(slot):
    """As on devices for which nothing is compiled."""
    return signature_of(slot) or PlainLoop()


def looped(slot):
    return PlainLoop()


def engine_of(problem, choose, **options):
    engine = problem.engine(**options)
    engine._housing = Housing(engine._data, choose)
    return engine


def trained(problem, specs, finish, curve_of, choose=home_of):
    engine = engine_of(problem, choose, capacity=len(specs))
    for spec in specs:
        engine.admit(spec)
    return {name: curve_of(reports) for name, reports in finish(engine).items()}


def largest_difference(ours, theirs):
    return max(
        abs(ours[name][epoch][1][metric] - value) / max(1e-3, abs(value))
        for name in theirs
        for epoch, (_, metrics) in enumerate(theirs[name])
        for metric, value in metrics.items()
    )


LENGTHS = {"a": 1, "b": 3, "c": 2, "d": 1}
SHAPES = {
    "mlp-tabular": [{"width": 16, "activation": "gelu"}, {"width": 75, "depth": 1, "activation": "tanh"}],
    "mlp-regression": [{"width": 17, "activation": "silu", "batch_size": 30}, {"width": 40, "batch_size": 7}],
    "cnn-image": [
        {"width": 8, "activation": "gelu"},
        {"width": 16, "depth": 1, "batch_size": 30, "activation": "tanh"},
    ],
    "cnn-colours": [{"width": 8, "depth": 1, "activation": "silu"}, {"width": 16, "depth": 1}],
    "gru-sequence": [{"width": 17, "depth": 1, "batch_size": 30}],
    "gru-text": [{"width": 31, "depth": 1, "batch_size": 15}],
    "transformer-sequence": [{"width": 24, "depth": 1, "heads": 2}],
    "transformer-text": [{"width": 33, "depth": 1, "heads": 1, "batch_size": 14}],
}


@pytest.mark.parametrize("name", SHAPES)
def test_members_give_the_curves_that_they_give_alone_bit_for_bit(named_problem, finish, curve_of, name):
    problem = named_problem(name)
    for shape in SHAPES[name]:
        # Given trials of one signature that share nothing else
        specs = mixed_specs(problem, 3, random.Random(name), **shape)
        engine = engine_of(problem, stacked, capacity=3)
        for spec in specs:
            engine.admit(spec)
        assert len(set(engine._housing._populations.values()) - {None}) == 1

        # When they train together, and each alone
        together = {trial: curve_of(reports) for trial, reports in finish(engine).items()}
        alone = {}
        for spec in specs:
            alone |= trained(problem, [spec], finish, curve_of, stacked)

        # Then nothing tells the difference, and the plain loop agrees but for rounding
        assert together == alone
        loop = trained(problem, specs, finish, curve_of, looped)
        assert largest_difference(together, loop) < RELATIVE_TOLERANCE


@pytest.mark.parametrize("size", [2, 4, 16, 64])
def test_the_size_of_a_population_changes_no_bit(named_problem, finish, curve_of, size):
    problem = named_problem("mlp-tabular")
    specs = mixed_specs(problem, 20, random.Random(1), max_epochs=1, batch_size=60)
    size_search(signature_of_first(problem, specs), torch.device("cpu")).__init__((size,), settled=True)
    expected = {}
    for spec in specs:
        expected |= trained(problem, [spec], finish, curve_of, stacked)
    assert trained(problem, specs, finish, curve_of, stacked) == expected


CROWD = 63
SCHEDULES = (
    {"warmup_fraction": 0.2, "plateau_fraction": 0.3, "decay_exponent": 2.0, "final_fraction": 0.1},
    {"warmup_fraction": 0.0, "plateau_fraction": 0.0, "decay_exponent": 1.0, "final_fraction": 0.0},
    {"warmup_fraction": 0.1, "plateau_fraction": 0.8, "decay_exponent": 0.5, "final_fraction": 0.0},
)
BATCH_SIZES = (30, 32, 60, 120)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_is_the_same_in_a_crowd_alone_and_by_the_plain_loop(problem, finish, curve_of, optimizer):
    # Given a trial, and 63 others of its network that differ in everything that may, batch sizes included
    draws = random.Random(optimizer)
    mine = problem.spec("mine", max_epochs=2, seed=99, optimizer=optimizer, lr_schedule=SCHEDULES[0])
    others = [
        spec
        for position, size in enumerate(BATCH_SIZES)
        for spec in renamed(problem, position, draws, batch_size=size, lr_schedule=draws.choice(SCHEDULES))
    ]
    assert len(others) == CROWD + 1

    # When it trains among them, alone, and by the plain loop
    crowd = trained(problem, [*others[:31], mine, *others[32:]], finish, curve_of)
    alone = trained(problem, [mine], finish, curve_of)
    loop = trained(problem, [mine], finish, curve_of, looped)

    # Then nothing tells the crowd from solitude, and the plain loop agrees but for rounding
    assert crowd["mine"] == alone["mine"]
    assert largest_difference(alone, loop) < RELATIVE_TOLERANCE


def renamed(problem, position, draws, **shared):
    """Sixteen trials of one batch size."""
    specs = mixed_specs(problem, (CROWD + 1) // len(BATCH_SIZES), draws, max_epochs=1, **shared)
    return [replace(spec, trial_id=f"{position}-{spec.trial_id}") for spec in specs]


def signature_of_first(problem, specs):
    engine = engine_of(problem, stacked)
    engine.admit(specs[0])
    (signature,) = engine._housing._populations.values()
    return signature


@pytest.mark.parametrize(
    ("name", "change", "stacked"),
    [
        ("cnn-image", {"width": 16}, True),
        ("cnn-image", {"width": 8, "batch_size": 120}, True),
        ("cnn-image", {"width": 12}, False),  # alone it would need a copy of itself in every layer
        ("cnn-image", {"width": 16, "batch_size": 120}, False),
        ("cnn-large", {"width": 16}, False),
        ("cnn-large", {"width": 16, "batch_size": 4}, True),  # a strided stem leaves a quarter of the pixels
    ],
)
def test_convolutions_are_stacked_where_a_cpu_gains(named_problem, name, change, stacked):
    problem = named_problem(name)
    assert (signature_of_first(problem, [problem.spec(**change)]) is not None) == stacked


def test_perceptrons_of_nearly_the_same_width_share_a_population(named_problem, finish, curve_of):
    # Given perceptrons of different widths
    problem = named_problem("mlp-tabular")
    specs = [problem.spec(f"w{width}", width=width, max_epochs=2) for width in (17, 20, 32)]
    engine = engine_of(problem, stacked, capacity=3)
    for spec in specs:
        engine.admit(spec)

    # Then they are one population, and train as each does alone
    (population,) = engine._housing._populations
    assert len(population.members) == 3
    together = {name: curve_of(reports) for name, reports in finish(engine).items()}
    for spec in specs:
        assert trained(problem, [spec], finish, curve_of, stacked)[spec.trial_id] == together[spec.trial_id]


@pytest.mark.parametrize("choose", [home_of, stacked])
def test_padding_stays_zero(named_problem, finish, choose):
    problem = named_problem("mlp-tabular")
    engine = engine_of(problem, choose)
    engine.admit(problem.spec(width=19, optimizer="adam", weight_decay=0.1, max_epochs=2))
    slot = engine._slots["trial"]
    finish(engine)
    kept = torch.zeros_like(slot.flat.weights)
    for part in slot.flat.layout.parameters(kept):
        part.fill_(1.0)
    for row in (slot.flat.weights, slot.flat.gradient, *slot.state.values()):
        assert torch.count_nonzero(row * (1.0 - kept)) == 0


def test_members_of_different_ages_join_and_leave_without_waiting(problem, finish, curve_of):
    # Given trials of different lengths, and what they give alone
    specs = {name: problem.spec(name, max_epochs=epochs, seed=epochs) for name, epochs in LENGTHS.items()}
    alone = {name: trained(problem, [spec], finish, curve_of)[name] for name, spec in specs.items()}

    # When there are two slots, each given to the next trial as soon as it is free, and one trial is frozen in between
    engine, waiting, frozen = problem.engine(capacity=2), list(LENGTHS), {}
    together = {name: [] for name in specs}
    while waiting or engine.live:
        while engine.free and waiting:
            name = waiting.pop(0)
            engine.admit(specs[name], frozen.pop(name, None))
        for report in engine.advance(timeout_s=0.01):
            name = report.trial_id
            together[name].append(report)
            if name == "b" and report.epoch == 2:
                frozen[name] = engine.snapshot(name)
                waiting.append(name)
            if report.finished or name in frozen:
                engine.release(name)

    # Then each gives the curve it gives alone
    assert {name: curve_of(reports) for name, reports in together.items()} == alone


@pytest.mark.parametrize("choose", [home_of, stacked])
def test_a_trial_leaves_in_the_middle_of_an_epoch(named_problem, finish, curve_of, monkeypatch, choose):
    monkeypatch.setattr(compiled, "_OPERATIONS_AT_ONCE", 1.0)
    problem = named_problem("mlp-tabular")
    specs = [problem.spec(name, seed=seed) for seed, name in enumerate("abc")]
    alone = {}
    for spec in specs:
        alone |= trained(problem, [spec], finish, curve_of, choose)
    engine = engine_of(problem, choose, capacity=3)
    for spec in specs:
        engine.admit(spec)
    engine.advance(timeout_s=0.0)
    frozen = engine.snapshot("a")
    engine.release("a")
    assert engine.held == ("b", "c")
    rest = {name: curve_of(reports) for name, reports in finish(engine).items()}
    engine.admit(specs[0], frozen)
    rest |= {name: curve_of(reports) for name, reports in finish(engine).items()}
    assert rest == alone


def test_a_checkpoint_of_the_plain_loop_is_resumed_by_a_population_and_back(problem, finish, curve_of):
    # Given a trial that the plain loop has trained for an epoch
    spec = problem.spec(max_epochs=3)
    whole = trained(problem, [spec], finish, curve_of)
    first = engine_of(problem, looped)
    first.admit(spec)
    reports = first.advance()

    # When a population resumes it
    second = problem.engine()
    second.admit(spec, first.snapshot("trial"))
    reports += second.advance()
    first.release("trial")
    first.admit(spec, second.snapshot("trial"))
    reports += first.advance()

    # Then the curve is the same but for rounding
    assert largest_difference({"trial": curve_of(reports)}, whole) < RELATIVE_TOLERANCE


class Faulty:
    """A shape whose program raises when it computes more members than it can."""

    def __init__(self, shape, most, error):
        self.shape, self.most, self.error = shape, most, error
        self.row_multiple, self.stored = shape.row_multiple, shape.stored

    def __eq__(self, other):
        return self.shape == other.shape

    def __hash__(self):
        return hash((self.shape, self.most, str(self.error)))

    def program(self, parts, data):
        inner, shape = self.shape.program(parts, data), self

        class Program(type(inner)):
            def gradients(self, batch):
                if len(batch.places) > shape.most:
                    raise shape.error
                return super().gradients(batch)

        return Program(self.shape, parts, data)


def faulty(most, error):
    def sign(slot):
        return Signature(Faulty(MLPShape.of(slot.module, slot.data), most, error), slot.batches.widen(4))

    return sign


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_population_that_does_not_fit_is_halved_and_loses_nobody(named_problem, finish, curve_of, most):
    # Given a device on which only a few members fit
    problem = named_problem("mlp-tabular")
    specs = mixed_specs(problem, 7, random.Random(2), batch_size=50)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    # When seven are trained
    found = trained(problem, specs, finish, curve_of, faulty(most, error))

    # Then all of them are trained, to the same numbers
    assert found == trained(problem, specs, finish, curve_of, stacked)


def test_a_population_that_cannot_be_stacked_goes_on_by_the_plain_loop(named_problem, finish, curve_of, caplog):
    problem = named_problem("mlp-tabular")
    specs = mixed_specs(problem, 3, random.Random(3))
    found = trained(problem, specs, finish, curve_of, faulty(0, ValueError("a fault in the program")))
    assert found == trained(problem, specs, finish, curve_of, looped)
    assert "a fault in the program" in caplog.text


def test_populations_that_have_become_small_are_merged(named_problem):
    # Given two full populations
    problem = named_problem("mlp-tabular")
    specs = [problem.spec(f"t{position}", max_epochs=9, batch_size=40) for position in range(8)]
    search = size_search(signature_of_first(problem, specs), torch.device("cpu"))
    search.__init__((4,), settled=True)
    engine = engine_of(problem, stacked, capacity=8)
    for spec in specs:
        engine.admit(spec)
    assert sorted(len(one.members) for one in engine._housing._populations) == [4, 4]

    # When half of the members leave
    for trial in ("t0", "t1", "t4", "t5"):
        engine.release(trial)

    # Then the rest are one population
    assert [len(one.members) for one in engine._housing._populations] == [4]
    assert {report.trial_id for report in engine.advance()} == set(engine.live)


def test_sizes_grow_while_steps_become_faster():
    search = SizeSearch((4, 16, 64))
    assert not search.note(3, 1.0, more=True)  # not full yet
    assert not search.note(4, None, more=True)  # not measured yet
    assert not search.note(4, 1.0, more=False)  # nobody to fill more
    assert search.note(4, 1.0, more=True)
    assert search.size == 16
    assert not search.note(4, 0.9, more=True)  # as small as before: says nothing
    assert search.note(12, 0.5, more=True)
    assert search.size == 64
    assert search.note(64, 0.6, more=True)
    assert (search.size, search.settled) == (16, True)
    assert not search.note(16, 0.1, more=True)


def test_populations_grow_by_real_steps(named_problem, finish, curve_of):
    # Given more trials than one population begins with
    problem = named_problem("mlp-tabular")
    specs = mixed_specs(problem, 9, random.Random(4), max_epochs=12, batch_size=11)
    signature = signature_of_first(problem, specs)
    assert size_search(signature, torch.device("cpu")).size == 4

    # When they train, then larger populations are tried, and no bit changes
    together = trained(problem, specs, finish, curve_of, stacked)
    search = size_search(signature, torch.device("cpu"))
    assert search.size == 16 or search.settled
    assert together["t3"] == trained(problem, specs[3:4], finish, curve_of, stacked)["t3"]


def test_the_learning_of_one_does_not_wait_for_the_epoch_of_another(named_problem):
    # Given a trial of many updates an epoch beside one of few
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec("long", batch_size=4, max_epochs=3))
    engine.admit(problem.spec("short", batch_size=120, max_epochs=3))
    seen = []
    while engine.live:
        seen += [(report.trial_id, report.epoch) for report in engine.advance()]

    # Then they take turns by the epoch
    assert sorted(seen) == [(name, epoch) for name in ("long", "short") for epoch in (1, 2, 3)]
    assert {name for name, _ in seen[:2]} == {"long", "short"}
