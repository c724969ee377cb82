"""Small but real training problems, one for each network and kind of data."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from foretune.json_types import JsonObject
from foretune.wire.datasets import Task
from workers.datasets.builtin import load_builtin
from workers.datasets.dataset import Dataset
from workers.datasets.prepare import PreparedData, prepare
from workers.engine import Engine, EpochReport, TrialSpec, trial_spec
from workers.networks import Network, get_network

ROWS = 120


@dataclass(frozen=True)
class Problem:
    network: Network
    data: PreparedData
    configuration: JsonObject

    def spec(self, trial_id: str = "trial", *, max_epochs: int = 3, seed: int = 0, **changed: object) -> TrialSpec:
        configuration = {**self.configuration, **changed}
        return trial_spec(self.network, trial_id, configuration, max_epochs=max_epochs, seed=seed)

    def engine(self, **options: object) -> Engine:
        return Engine(self.network, self.data, "cpu", **options)


def text_data(characters: int) -> PreparedData:
    """A real text that every Python has: the source of argparse."""
    text = inspect.getsource(argparse)[:characters]
    vocabulary = tuple(sorted(set(text)))
    ids = np.array([vocabulary.index(character) for character in text], dtype=np.int32)
    dataset = Dataset(
        name="argparse",
        task=Task.LANGUAGE_MODELLING,
        modality="text",
        X=ids,
        y=np.zeros(0, np.int64),
        vocabulary=vocabulary,
    )
    return prepare(dataset, 0, "text")


@cache
def problem_named(name: str) -> Problem:
    small: JsonObject = {"width": 16, "depth": 2, "dropout": 0.2, "batch_size": 32, "learning_rate": 5e-3}
    network, kind = name.split("-")
    if kind == "text":
        return Problem(get_network(network), text_data(2_000), {**small, "context_length": 16})
    if kind == "regression":
        return Problem(get_network(network), prepare(load_builtin("diabetes"), 0, "tabular"), small)
    whole = prepare(load_builtin("digits"), 0, kind)  # type: ignore[arg-type]
    data = replace(
        whole,
        train_x=whole.train_x[:ROWS],
        train_y=whole.train_y[:ROWS],
        val_x=whole.val_x[:ROWS],
        val_y=whole.val_y[:ROWS],
    )
    return Problem(get_network(network), data, small)


PROBLEMS = (
    "mlp-tabular",
    "mlp-regression",
    "cnn-image",
    "gru-sequence",
    "gru-text",
    "transformer-sequence",
    "transformer-text",
)


def run_to_end(engine: Engine) -> dict[str, list[EpochReport]]:
    """Every report by trial, in order."""
    reports: dict[str, list[EpochReport]] = {}
    while engine.live:
        for report in engine.advance():
            reports.setdefault(report.trial_id, []).append(report)
    return reports


def curve(reports: list[EpochReport]) -> list[tuple[int, dict[str, float]]]:
    return [(report.epoch, dict(report.metrics)) for report in reports]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return problem_named(request.param)


@pytest.fixture
def named_problem() -> Callable[[str], Problem]:
    return problem_named


@pytest.fixture
def finish() -> Callable[[Engine], dict[str, list[EpochReport]]]:
    return run_to_end


@pytest.fixture
def curve_of() -> Callable[[list[EpochReport]], list[tuple[int, dict[str, float]]]]:
    return curve
