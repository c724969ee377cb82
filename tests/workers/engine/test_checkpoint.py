"""Freezing and thawing trials."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load as load_safetensors

from workers.engine import Checkpoint, InvalidCheckpoint

OPTIMIZERS = ("sgd", "adam", "adamw")
EPOCHS, FROZEN_AFTER = 10, 4

RESUME = """
import json, runpy, sys
from pathlib import Path
from workers.engine import Checkpoint
names = runpy.run_path(sys.argv[1])
curves = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    name, optimizer = path.name.split("_")
    problem = names["problem_named"](name)
    engine = problem.engine()
    checkpoint = Checkpoint.from_bytes(path.read_bytes())
    engine.admit(problem.spec(max_epochs=int(sys.argv[3]), optimizer=optimizer), checkpoint)
    curves[path.name] = names["curve"](names["run_to_end"](engine)["trial"])
print(json.dumps(curves))
"""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_trial_gives_the_uninterrupted_curve_bit_for_bit(problem, optimizer, finish, curve_of):
    # Given a trial trained without interruption
    whole = problem.engine()
    whole.admit(problem.spec(max_epochs=EPOCHS, optimizer=optimizer))
    expected = curve_of(finish(whole)["trial"])

    # When another is frozen after four epochs, sent through bytes, and thawed in another engine
    first = problem.engine()
    first.admit(problem.spec(max_epochs=EPOCHS, optimizer=optimizer))
    reports = [report for _ in range(FROZEN_AFTER) for report in first.advance()]
    frozen = Checkpoint.from_bytes(first.snapshot("trial").to_bytes())
    second = problem.engine()
    second.admit(problem.spec(max_epochs=EPOCHS, optimizer=optimizer), frozen)
    reports += finish(second)["trial"]

    # Then nothing tells the difference: neither the curve nor the final weights
    assert curve_of(reports) == expected
    ours, theirs = second.snapshot("trial"), whole.snapshot("trial")
    assert ours.position == theirs.position
    assert all(torch.equal(ours.weights[name], tensor) for name, tensor in theirs.weights.items())
    assert all(torch.equal(ours.optimizer_state[name], tensor) for name, tensor in theirs.optimizer_state.items())


def test_a_fresh_process_resumes_bit_for_bit(named_problem, finish, curve_of, in_fresh_process, tmp_path):
    # Given trials of every kind, trained without interruption, and their checkpoints after four epochs
    expected = {}
    for name in ("mlp-tabular", "mlp-regression", "cnn-image", "gru-text", "transformer-sequence", "transformer-text"):
        problem = named_problem(name)
        for optimizer in OPTIMIZERS:
            engine = problem.engine()
            engine.admit(problem.spec(max_epochs=EPOCHS, optimizer=optimizer))
            for _ in range(FROZEN_AFTER):
                engine.advance()
            (tmp_path / f"{name}_{optimizer}").write_bytes(engine.snapshot("trial").to_bytes())
            expected[f"{name}_{optimizer}"] = curve_of(finish(engine)["trial"])

    # When a fresh process resumes them
    resumed = in_fresh_process(RESUME, str(tmp_path), str(EPOCHS))

    # Then their curves go on as if nothing had happened
    assert resumed == json.loads(json.dumps(expected))


def test_a_trial_frozen_in_the_middle_of_an_epoch_loses_nothing(problem, finish, curve_of):
    # Given a trial trained without interruption
    whole = problem.engine()
    whole.admit(problem.spec())
    expected = curve_of(finish(whole)["trial"])

    # When another is frozen and thawed after every single update
    reports, frozen = [], None
    while True:
        engine = problem.engine()
        engine.admit(problem.spec(), frozen)
        if not engine.live:
            break
        reports += engine.advance(timeout_s=0.0)
        frozen = Checkpoint.from_bytes(engine.snapshot("trial").to_bytes())

    # Then the curves are equal
    assert curve_of(reports) == expected


def test_a_snapshot_does_not_disturb_and_does_not_change(problem, finish, curve_of):
    plain, watched = problem.engine(), problem.engine()
    plain.admit(problem.spec())
    watched.admit(problem.spec())
    watched.advance()
    frozen = watched.snapshot("trial")
    before = frozen.to_bytes()
    rest = finish(watched)["trial"]
    assert curve_of(rest) == curve_of(finish(plain)["trial"])[1:]
    assert frozen.to_bytes() == before


def test_bytes_are_safetensors_with_the_modules_own_names(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec(optimizer="adamw"))
    tensors = load_safetensors(engine.snapshot("trial").to_bytes())
    module = problem.network.build(problem.network.resolve(problem.configuration), engine._data.shape)
    assert {name for name in tensors if not name.startswith("optimizer/")} == set(module.state_dict())
    assert {name for name in tensors if name.startswith("optimizer/")} == {
        "optimizer/first_moment",
        "optimizer/second_moment",
    }


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "foreign", "header", "format"])
def test_anything_but_a_checkpoint_is_refused(named_problem, damage):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec())
    good = engine.snapshot("trial").to_bytes()
    from safetensors.torch import save

    bad = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "noise": b"\x07" * 400,
        "foreign": save({"x": torch.zeros(3)}),
        "header": good.replace(b'\\"seed\\":0', b'\\"seed\\":x'),
        "format": good.replace(b'\\"format\\":2', b'\\"format\\":1'),
    }[damage]
    with pytest.raises(InvalidCheckpoint):
        Checkpoint.from_bytes(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"network": "cnn"},
        {"data_key": "other"},
        {"configuration": {"width": 13}},
    ],
)
def test_a_checkpoint_of_another_trial_is_refused(named_problem, change):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec())
    foreign = replace(engine.snapshot("trial"), **change)
    with pytest.raises(InvalidCheckpoint, match="belongs to another"):
        problem.engine().admit(problem.spec(), foreign)


def test_weights_and_vectors_that_do_not_fit_are_refused(named_problem):
    problem = named_problem("mlp-tabular")
    engine = problem.engine()
    engine.admit(problem.spec())
    good = engine.snapshot("trial")
    with pytest.raises(InvalidCheckpoint, match="weights do not fit"):
        problem.engine().admit(problem.spec(), replace(good, weights={"x": torch.zeros(1)}))
    with pytest.raises(InvalidCheckpoint, match="vectors do not fit"):
        problem.engine().admit(problem.spec(), replace(good, optimizer_state={}))
    with pytest.raises(InvalidCheckpoint, match="does not lie in epoch"):
        problem.engine().admit(problem.spec(), replace(good, position=replace(good.position, update=99)))
