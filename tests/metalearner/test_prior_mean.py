"""What is known of all settings of a network beforehand: a function on any of its spaces, and never the last word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int
from foretune.spaces import Space
from metalearner import Effort, Memory, Observation, PriorMean, Problem, cold_gp, known_mean, propose, recommend
from metalearner.arrays import Array
from metalearner.encoding import Encoding
from metalearner.memory import History
from metalearner.prior_mean import expectation, mean_on
from workers.starter.shelf import starter_histories

_MLP = known_mean("mlp")
assert _MLP is not None
MLP: PriorMean = _MLP
OWN = Space.of(
    Float("learning_rate", 1e-3, 0.1),
    Categorical("optimizer", ["adamw", "sgd"]),
    Float("momentum", 0.5, 0.9, when={"optimizer": ["sgd"]}),
    Int("width", 32, 256),
    Categorical("depth", [1, 3], ordered=True),
    *(one for one in MLP.reference.space.parameters if one.name in ("dropout", "lr_schedule")),
)
"""Other ranges, scales, types, choices and orders; and some that are not there."""


def _history(space: Space, rows: Array, losses: Array) -> tuple[History, list[Observation]]:
    encoding = Encoding.of(space)
    told = [Observation(encoding.decode(row), float(loss)) for row, loss in zip(rows, losses, strict=True)]
    return Memory().history(_problem(space), told), told


def _problem(space: Space, known: PriorMean | None = None) -> Problem:
    return Problem(space, Goal.MINIMIZE, 10, 64, 3, prior_mean=known)


def _random_rows(encoding: Encoding, count: int, seed: int = 0) -> Array:
    return encoding.rows(np.random.default_rng(seed).random((count, encoding.width)))


@given(st.integers(0, 2**32 - 1))
def test_a_configuration_is_worth_the_same_in_every_space_of_the_network(seed: int) -> None:
    encoding = Encoding.of(OWN)
    row = _random_rows(encoding, 1, seed)[0]
    batch_size = [32, 64, 128][seed % 3]
    chosen = {**encoding.decode(row), "batch_size": batch_size}
    elsewhere = ("weight_decay", "label_smoothing", "activation")
    whole = {name: value for name, value in MLP.values.items() if name in elsewhere} | chosen
    there = mean_on(MLP.where({"batch_size": batch_size}), encoding)(row[None, :])
    # A broken line of 128 pieces stands for a logarithm.
    assert there == pytest.approx(MLP.at(MLP.reference.encode_all([whole])), abs=0.03)


def test_on_its_own_space_it_is_the_function_itself() -> None:
    rows = _random_rows(MLP.reference, 20)
    again = Encoding.of(Space.from_json(MLP.reference.space.to_json()))
    assert mean_on(MLP, again)(rows).tolist() == MLP.at(rows).tolist()


def test_what_the_reference_does_not_know_counts_as_the_default() -> None:
    space = Space.of(Categorical("activation", ["relu", "selu"]), Float("width", 20.0, 400.0), Float("own", 0.0, 1.0))
    encoding = Encoding.of(space)
    values = mean_on(MLP, encoding)(_random_rows(encoding, 30))
    assert np.isfinite(values).all()
    assert len(set(values.round(6).tolist())) > 10, "the width is known, as a number"
    relu, selu = mean_on(MLP, encoding)(
        encoding.encode_all([{"activation": one, "width": 99.0, "own": 0.5} for one in ("relu", "selu")])
    )
    assert relu == pytest.approx(
        mean_on(MLP.where({"activation": "relu"}), encoding)(
            encoding.encode_all([{"activation": "selu", "width": 99.0, "own": 0.5}])
        )[0]
    )
    assert relu != selu, "gelu is the default"
    alone = mean_on(MLP, Encoding.of(Space.of(Float("own", 0.0, 1.0))))(np.array([[0.1], [0.9]]))
    assert alone[0] == alone[1]


def test_a_file_gives_the_function_that_was_written() -> None:
    rows = _random_rows(MLP.reference, 50)
    again = PriorMean.from_json(json.loads(json.dumps(MLP.to_json())))
    assert again.at(rows) == pytest.approx(MLP.at(rows), abs=1e-9)


@pytest.mark.parametrize("network", [None, "cnn", "never_heard_of"])
def test_nothing_is_known_of_other_networks(network: str | None) -> None:
    assert known_mean(network) is None


@pytest.mark.parametrize("data", ["digits", "fashion", "breast_cancer", "wine", "iris", "diabetes"])
def test_it_holds_on_tasks_that_it_never_saw(data: str) -> None:
    """Real jobs on real data, none of which had a say in it, classification and regression."""
    correlations = []
    for one in starter_histories():
        if one.reference.startswith(f"starter_mlp-{data}"):
            encoding = Encoding.of(one.space)
            trials = [
                {name: values[place] for name, values in one.columns.items() if values[place] is not None}
                for place in range(len(one.values))
            ]
            expected = mean_on(MLP.where(one.fixed), encoding)(encoding.encode_all(trials))
            correlations.append(float(spearmanr(expected, one.losses)[0]))
    assert len(correlations) >= 8
    assert np.mean(correlations) > 0.15, np.round(correlations, 2)


def test_scores_that_contradict_it_silence_it() -> None:
    rows = _random_rows(MLP.reference, 12)
    scores = MLP.at(rows)
    scores = (scores - scores.mean()) / scores.std()
    assert expectation(MLP.at, rows, -scores).slope == 0.0
    spread = float(MLP.at(rows).std())
    agreeing = expectation(MLP.at, rows, scores)
    assert 0.6 / (spread + 0.2) < agreeing.slope <= 1.0 / spread
    assert float(agreeing.at(rows).mean()) == pytest.approx(0.0, abs=1e-9)
    # Where it is silent the surrogate is that of a network of which nothing is known.
    history, _ = _history(MLP.reference.space, rows, -MLP.at(rows))
    silent, none = (
        cold_gp.surrogate(
            history, Memory(), cold_gp.settings_for(Effort.FAST, MLP.reference, informed=True, prior_mean=known)
        )
        for known in (MLP, None)
    )
    new = _random_rows(MLP.reference, 30, seed=1)
    for one, other in zip(silent.predict(new), none.predict(new), strict=True):
        assert one.tolist() == other.tolist()
    assert silent.best == none.best


@pytest.mark.parametrize("effort", list(Effort))
def test_few_results_are_enough_where_it_is_right(effort: Effort) -> None:
    """Six results of a task that is as expected: what is proposed next is better than without."""
    space, rows = MLP.reference.space, _random_rows(MLP.reference, 6, seed=5)
    _, told = _history(space, rows, MLP.at(rows))
    worth = {}
    for known in (MLP, None):
        proposals = propose(_problem(space, known), told, [], 5, index=6, memory=Memory(), effort=effort)
        worth[known] = float(MLP.at(MLP.reference.encode_all([one.configuration for one in proposals])).mean())
    assert worth[MLP] < worth[None] - 0.3, worth
    assert worth[MLP] < float(MLP.at(rows).min())


def test_a_task_of_its_own_is_learned_all_the_same() -> None:
    """The best settings are where the mean says the worst are, and results say so."""
    rows = _random_rows(MLP.reference, 40, seed=2)
    history, told = _history(MLP.reference.space, rows, -MLP.at(rows))
    settings = cold_gp.settings_for(Effort.THOROUGH, MLP.reference, informed=True, prior_mean=MLP)
    model = cold_gp.surrogate(history, Memory(), settings)
    new = _random_rows(MLP.reference, 200, seed=3)
    assert spearmanr(model.predict(new)[0], -MLP.at(new))[0] > 0.7
    items = recommend(_problem(MLP.reference.space, MLP), told, None, 2).items
    assert {one.origin.value for one in items} == {"best_seen", "best_predicted"}
    predicted = MLP.reference.encode_all([one.configuration for one in items])
    assert float(-MLP.at(predicted).max()) < np.quantile(-MLP.at(new), 0.1)


def test_the_files_are_small_and_named_after_their_networks() -> None:
    folder = Path(__file__).parents[2] / "metalearner" / "prior_means"
    for file in folder.iterdir():
        known = known_mean(file.stem)
        assert known is not None
        assert known.network == file.stem
        assert file.stat().st_size < 50_000
