"""The methods compared: each asks for one configuration at a time and is told its value, None for a diverged run."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import metalearner
from benchmarks.cold.methods import METHODS as COLD
from benchmarks.transfer_parts.tables import Table
from foretune.metrics import Goal
from foretune.spaces import Configuration
from metalearner import Effort, FeatureLikeness, Memory, Observation, Problem, ProposerName, Task, TaskHistory


class Asker(Protocol):
    """One optimisation under way."""

    def ask(self) -> Configuration: ...

    def tell(self, configuration: Configuration, value: float | None) -> None: ...


Learned: TypeAlias = Literal["all", "portfolio", "nothing"]
"""What a run of ours learns from its histories."""
Start: TypeAlias = Callable[[Table, Sequence[TaskHistory], int, int], Asker]
"""table, histories, seed, trials planned"""
_WORST = 1e6


@dataclass(frozen=True)
class Method:
    """A way to propose. `version` changes whenever its results may; `learns`: whether histories change them."""

    name: str
    version: str
    learns: bool
    start: Start


class _Foretune:
    def __init__(
        self, table: Table, histories: Sequence[TaskHistory], seed: int, trials: int, learned: Learned, effort: Effort
    ) -> None:
        problem = Problem(table.space, table.goal, 1, trials, seed, ProposerName.AUTO, metric=table.metric)
        task = Task(table.metric, table.goal)
        weights = FeatureLikeness().weights(task, [one.task for one in histories]).tolist()
        if learned != "nothing":
            problem = metalearner.informed(problem, histories, weights)
        self._problem = replace(problem, knowledge=None) if learned == "portfolio" else problem
        self._effort, self._memory = effort, Memory()
        self._observations: list[Observation] = []
        self.origins: list[str] = []

    def ask(self) -> Configuration:
        (proposal,) = metalearner.propose(
            self._problem,
            self._observations,
            (),
            1,
            index=len(self._observations),
            memory=self._memory,
            effort=self._effort,
        )
        self.origins.append(proposal.origin.value)
        return proposal.configuration

    def tell(self, configuration: Configuration, value: float | None) -> None:
        self._observations.append(Observation(configuration, value, infeasible=value is None))


class _Peer:
    """A peer that minimises and knows no diverged run: such a run is told as the worst value so far."""

    def __init__(self, table: Table, seed: int, trials: int, name: str) -> None:
        self._asker = COLD[name].start(table.space, seed, trials)
        self._sign = 1.0 if table.goal is Goal.MINIMIZE else -1.0
        self._worst = 0.0

    def ask(self) -> Configuration:
        return self._asker.ask()

    def tell(self, configuration: Configuration, value: float | None) -> None:
        loss = self._worst if value is None else min(self._sign * value, _WORST)
        self._worst = max(self._worst, loss)
        self._asker.tell(configuration, loss)


class _BoTorch:
    """BoTorch's standard loop: Sobol points, then a fitted `SingleTaskGP` and its log expected improvement."""

    def __init__(self, table: Table, seed: int) -> None:
        import torch
        from torch.quasirandom import SobolEngine

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self._space, self._start = table.space, table.space.dimensions + 2
        self._sobol = SobolEngine(table.space.dimensions, scramble=True, seed=seed)
        self._sign = 1.0 if table.goal is Goal.MAXIMIZE else -1.0
        self._points: list[list[float]] = []
        self._values: list[float] = []

    def ask(self) -> Configuration:
        point = self._sobol.draw(1)[0].tolist() if len(self._points) < self._start else self._best()
        return self._space.from_unit(point)

    def _best(self) -> list[float]:
        import torch
        from botorch.acquisition import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        x = torch.tensor(self._points, dtype=torch.float64)
        y = torch.tensor(self._values, dtype=torch.float64)[:, None]
        y = (y - y.mean()) / y.std().clamp_min(1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = SingleTaskGP(x, y)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            bounds = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).double()
            found, _ = optimize_acqf(
                LogExpectedImprovement(model, y.max()), bounds, q=1, num_restarts=4, raw_samples=128
            )
        return [float(one) for one in found[0]]

    def tell(self, configuration: Configuration, value: float | None) -> None:
        worst = min(self._values, default=0.0)
        told = worst if value is None else max(self._sign * value, -_WORST)
        self._points.append(self._space.to_unit(configuration))
        self._values.append(told)


def _ours(learned: Learned, effort: Effort) -> Start:
    return lambda table, histories, seed, trials: _Foretune(table, histories, seed, trials, learned, effort)


def _peer(name: str) -> Start:
    return lambda table, _histories, seed, trials: _Peer(table, seed, trials, name)


_OURS = COLD["foretune"].version
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("foretune", _OURS, True, _ours("all", Effort.FAST)),
        Method("foretune_thorough", _OURS, True, _ours("all", Effort.THOROUGH)),
        Method("portfolio", _OURS, True, _ours("portfolio", Effort.FAST)),
        Method("cold", _OURS, False, _ours("nothing", Effort.FAST)),
        *(Method(name, COLD[name].version, False, _peer(name)) for name in ("optuna_tpe", "optuna_gp", "random")),
        Method("botorch_gp", importlib.metadata.version("botorch"), False, lambda t, _h, s, _n: _BoTorch(t, s)),
    )
}
