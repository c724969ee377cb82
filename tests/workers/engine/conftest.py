"""Small but real training problems, one for each network and kind of data."""

import argparse
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

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
    view = kind if kind not in PICTURES else "image"
    whole = prepare(load_builtin("digits"), 0, view)  # type: ignore[arg-type]
    change = PICTURES.get(kind, torch.Tensor.contiguous)
    data = replace(
        whole,
        train_x=change(whole.train_x[:ROWS]),
        train_y=whole.train_y[:ROWS],
        val_x=change(whole.val_x[:ROWS]),
        val_y=whole.val_y[:ROWS],
        input_shape=tuple(change(whole.train_x[:1]).shape[1:]),
    )
    return Problem(get_network(network), data, small)


def in_colours(images: torch.Tensor) -> torch.Tensor:  # (B, 1, 8, 8) -> (B, 3, 9, 11)
    return F.pad(torch.cat([images, images.flip(2), images.flip(3)], 1), (1, 2, 0, 1))


def enlarged(images: torch.Tensor) -> torch.Tensor:  # (B, 1, 8, 8) -> (B, 1, 72, 72)
    return images.repeat_interleave(9, 2).repeat_interleave(9, 3)


PICTURES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"colours": in_colours, "large": enlarged}


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


def _in_fresh_process(script: str, *arguments: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", script, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def in_fresh_process() -> Callable[..., object]:
    """Runs a script that is given this file, then the arguments; what it prints, read as JSON."""
    return _in_fresh_process
