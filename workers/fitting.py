"""Fits a project's model of its histories: a kernel for each, calibration, and the replay that decides about its use.

What is worked out of a history is kept as soon as it is, so that a fit goes on where another worker was lost; a message
works for a bounded time and hands back. `python -m workers.fitting PROJECT` is the process in which that happens.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import structlog

from foretune.errors import LeaseLost
from foretune.json_types import JsonValue
from metalearner import FeatureLikeness, FittedModel, TaskHistory, replaying
from metalearner.fitted import Residuals
from metalearner.foresight import residuals
from metalearner.kernels import HistoryKernel, fit_kernel
from service.db.histories import StoredHistory
from service.db.models import FittedPart, StoredModel
from service.logs import configure_logging
from service.usecases import fitting, histories
from workers.priors import task_history
from workers.process import WorkerProcess, this_process

_MOST_HELD_OUT = 64
"""So many of the newest histories are held out for calibration."""
_MOST_REPLAYED = 24
_KEEP_EVERY_S = 1.0
_STAY_S = 20.0
"""So long a message works before others get their turn."""

_log = structlog.get_logger(__name__)


def fit_project(process: WorkerProcess, project: str, stay_s: float = _STAY_S) -> None:
    """Takes the project's fit, if there is one that nobody works on, and goes on with it."""
    histories.catch_up(process.database, project)
    with process.database.transaction() as tx:
        fit = fitting.claim(tx, project)
    if fit is None:
        return
    try:
        _Fit(process, fit, time.monotonic() + stay_s).run()
    except LeaseLost:
        _log.warning("fit_taken_over", project=project, version=fit.version)


class _Fit:
    """One worker's part of a fit."""

    def __init__(self, process: WorkerProcess, fit: StoredModel, until: float) -> None:
        self._process, self._fit, self._until = process, fit, until
        self._parent = os.getppid()
        self._kept_at = time.monotonic()
        self._new: dict[str, FittedPart] = {}

    def run(self) -> None:
        """Raises LeaseLost."""
        stored, parts = self._read()
        told = [task_history(one) for one in stored]
        for one, history in zip(stored, told, strict=True):
            if one.fingerprint not in parts:
                parts[one.fingerprint] = self._new[one.fingerprint] = FittedPart(_kernel_json(fit_kernel(history)))
                if not self._goes_on(len(parts)):
                    return
        references = {one.fingerprint: one.reference for one in stored}
        model = model_of(references, parts)
        likeness, tasks = FeatureLikeness(), [one.task for one in told]
        for place, (one, history) in enumerate(zip(stored[:_MOST_HELD_OUT], told, strict=False)):
            part = parts[one.fingerprint]
            if part.residuals is None:
                weights = likeness.weights(history.task, tasks)
                weights[place] = 0.0
                found = residuals(history, told, weights, model)
                told_json: JsonValue = {"other": list(found.other), "same": list(found.same)}
                parts[one.fingerprint] = self._new[one.fingerprint] = FittedPart(part.kernel, told_json)
                if not self._goes_on(len(parts)):
                    return
        self._keep(len(parts))
        self._judge(stored, told, model_of(references, parts))

    def _read(self) -> tuple[list[StoredHistory], dict[str, FittedPart]]:
        """What the model covers, the newest first, and what is known of it."""
        with self._process.database.reading() as tx:
            covered = fitting.covered(tx, self._fit)
            known = fitting.parts(tx, self._fit.project_id)
        return covered, {one.fingerprint: known[one.fingerprint] for one in covered if one.fingerprint in known}

    def _goes_on(self, fitted: int) -> bool:
        """Keeps what is new now and then; False once the time is over, and then the fit is handed back."""
        now = time.monotonic()
        over = now > self._until or self._process.draining() or os.getppid() != self._parent
        if over or now - self._kept_at > _KEEP_EVERY_S:
            self._keep(fitted)
        if over:
            with self._process.database.transaction() as tx:
                fitting.hand_back(tx, self._fit)
        return not over

    def _keep(self, fitted: int) -> None:
        with self._process.database.transaction() as tx:
            self._fit = fitting.keep(tx, self._fit, self._new, fitted)
        self._new, self._kept_at = {}, time.monotonic()

    def _judge(self, stored: Sequence[StoredHistory], told: Sequence[TaskHistory], model: FittedModel) -> None:
        with self._process.database.reading() as tx:
            champion = fitting.in_use(tx, self._fit.project_id)
            before = set(fitting.heard(tx, self._fit.project_id))
        # What the model in use knows is what must not suffer.
        known = [
            place
            for place, one in enumerate(stored)
            if champion is None or (one.fingerprint in before and one.created_at <= champion.covers_until)
        ]
        challenger = replaying.replay(told, _sample(known, self._fit.version), model)
        self._keep(self._fit.fitted)
        incumbent = None
        if champion is not None and len(known) < len(told):
            own = [told[place] for place in known]
            chosen = {place: number for number, place in enumerate(known)}
            incumbent = replaying.replay(own, [chosen[one] for one in _sample(known, self._fit.version)], model)
        refused = replaying.refusal(challenger, incumbent)
        covered = [one.fingerprint for one in stored]
        kept = {covered[place] for place in known} if champion is not None else set()
        beyond = [one for one in covered if one not in kept]
        with self._process.database.transaction() as tx:
            fitting.finish(tx, self._fit, covered, beyond, challenger.means(), refused)
        _log.info("fit_finished", project=self._fit.project_id, version=self._fit.version, refused=refused)


def model_of(references: Mapping[str, str], parts: Mapping[str, FittedPart]) -> FittedModel:
    """The model that the kept parts make. `references`: of its histories, by fingerprint."""
    known = [(reference, parts[one]) for one, reference in references.items() if one in parts]
    return FittedModel(
        {reference: _kernel(part.kernel) for reference, part in known},
        {reference: found for reference, part in known for found in _residuals(part.residuals)},
    )


def _sample(places: Sequence[int], version: int) -> list[int]:
    """Another part of the histories for each version, the same for both sides."""
    if len(places) <= _MOST_REPLAYED:
        return list(places)
    generator = np.random.default_rng(version)
    return sorted(int(one) for one in generator.choice(places, _MOST_REPLAYED, replace=False))


def _kernel_json(kernel: HistoryKernel) -> JsonValue:
    return {"length_scales": list(kernel.length_scales), "scale": kernel.scale, "noise": kernel.noise}


def _kernel(told: JsonValue) -> HistoryKernel:
    assert isinstance(told, dict)
    scale, noise = _floats([told["scale"], told["noise"]])
    return HistoryKernel(_floats(told["length_scales"]), scale, noise)


def _residuals(told: JsonValue) -> Iterator[Residuals]:
    if isinstance(told, dict):
        yield Residuals(_floats(told["other"]), _floats(told["same"]))


def _floats(values: JsonValue) -> tuple[float, ...]:
    assert isinstance(values, list)
    return tuple(float(one) for one in values if isinstance(one, int | float))


def _main() -> None:
    """Behind everybody who answers somebody; asked to stop, it keeps what it has and hands back."""
    os.nice(10)
    configure_logging()
    signal.signal(signal.SIGTERM, lambda *_: this_process().stopping.set())
    fit_project(this_process(), sys.argv[1])


if __name__ == "__main__":
    _main()
