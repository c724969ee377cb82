"""The methods compared: each asks for one configuration at a time and is told its value."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

import metalearner
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter, Configuration, Space


class Proposer(Protocol):
    """One optimisation under way."""

    def ask(self) -> Configuration: ...

    def tell(self, configuration: Configuration, value: float) -> None: ...


Start: TypeAlias = Callable[[Space, int, int], Proposer]
"""space, seed, evaluations planned"""


@dataclass(frozen=True)
class Method:
    """A way to propose. `version` changes whenever its results may."""

    name: str
    version: str
    start: Start


class _Random:
    def __init__(self, space: Space, seed: int, _evaluations: int) -> None:
        self._space = space
        self._generator = np.random.default_rng(seed)

    def ask(self) -> Configuration:
        return self._space.from_unit(list(self._generator.random(self._space.dimensions)))

    def tell(self, configuration: Configuration, value: float) -> None:
        pass


class _Foretune:
    def __init__(self, space: Space, seed: int, evaluations: int, proposer: str, effort: str) -> None:
        self._problem = metalearner.Problem(
            space=space,
            goal=Goal.MINIMIZE,
            max_epochs=1,
            max_trials=evaluations,
            seed=seed,
            proposer=metalearner.ProposerName(proposer),
        )
        self._effort = metalearner.Effort(effort)
        self._memory = metalearner.Memory()
        self._observations: list[metalearner.Observation] = []

    def ask(self) -> Configuration:
        proposals = metalearner.propose(
            self._problem,
            self._observations,
            (),
            1,
            index=len(self._observations),
            memory=self._memory,
            effort=self._effort,
        )
        return proposals[0].configuration

    def tell(self, configuration: Configuration, value: float) -> None:
        self._observations.append(metalearner.Observation(configuration=configuration, value=value))


class _Optuna:
    """Optuna's ask and tell over the same space: ordered choices are integers on their grid."""

    def __init__(self, space: Space, seed: int, sampler: str) -> None:
        import optuna

        warnings.filterwarnings("ignore", module="optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        chosen = (
            optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            if sampler == "gp"
            else optuna.samplers.TPESampler(seed=seed)
        )
        self._space = space
        self._study = optuna.create_study(sampler=chosen)
        self._trial: optuna.Trial | None = None

    def ask(self) -> Configuration:
        self._trial = self._study.ask()
        values: Configuration = {}
        for parameter in self._space.parameters:
            if self._space.is_active(parameter, values):
                values[parameter.name] = self._suggest(parameter)
        return values

    def _suggest(self, parameter: AnyParameter) -> str | bool | int | float:
        assert self._trial is not None
        match parameter:
            case Float():
                return self._trial.suggest_float(
                    parameter.name, parameter.low, parameter.high, log=parameter.log, step=parameter.step
                )
            case Int():
                return self._trial.suggest_int(
                    parameter.name, parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1
                )
            case Categorical(ordered=True):
                return parameter.choices[self._trial.suggest_int(parameter.name, 0, len(parameter.choices) - 1)]
            case Categorical():
                return self._trial.suggest_categorical(parameter.name, parameter.choices)
            case Bool():
                return self._trial.suggest_categorical(parameter.name, [False, True])
            case Schedule():
                raise NotImplementedError("no benchmark problem has a schedule")

    def tell(self, configuration: Configuration, value: float) -> None:  # noqa: ARG002 - what it asked for
        self._study.tell(self._trial, value)


def _source_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(metalearner.__path__[0]).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _foretune(proposer: str, effort: str) -> Start:
    return lambda space, seed, evaluations: _Foretune(space, seed, evaluations, proposer, effort)


_OPTUNA = _version("optuna")
_OURS = _source_hash()
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("foretune", _OURS, _foretune("auto", "thorough")),
        Method("foretune_fast", _OURS, _foretune("auto", "fast")),
        Method("foretune_gp", _OURS, _foretune("gp", "thorough")),
        Method("foretune_tpe", _OURS, _foretune("tpe", "thorough")),
        Method("optuna_gp", _OPTUNA, lambda space, seed, _: _Optuna(space, seed, "gp")),
        Method("optuna_tpe", _OPTUNA, lambda space, seed, _: _Optuna(space, seed, "tpe")),
        Method("random", "1", _Random),
    )
}
