"""Fits a project's model of its histories: a kernel for each, calibration, and the replay that decides about its use.

What is worked out of a history is kept as soon as it is, so that a fit goes on where another worker was lost; a message
works for a bounded time and hands back. `python -m workers.fitting PROJECT` is the process in which that happens.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np
import structlog

from foretune.errors import LeaseLost
from metalearner import FittedModel, Likeness, TaskHistory, replaying
from metalearner.foresight import residuals
from metalearner.kernels import fit_kernel
from service.db.histories import StoredHistory
from service.db.models import FittedPart, StoredModel
from service.logs import configure_logging
from service.usecases import fitting, histories
from workers.fitted_parts import kernel_json, made_by, model_of, residuals_json
from workers.likeness import likeness_of
from workers.priors import task_history
from workers.process import WorkerProcess, this_process
from workers.task_spaces import Progress, learn

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
    except _HandedBack:
        return
    except LeaseLost:
        _log.warning("fit_taken_over", project=project, version=fit.version)


class _HandedBack(Exception):
    """What is done is kept; another message goes on."""


class _Fit:
    """One worker's part of a fit."""

    def __init__(self, process: WorkerProcess, fit: StoredModel, until: float) -> None:
        self._process, self._fit, self._until = process, fit, until
        self._parent = os.getppid()
        self._kept_at = time.monotonic()
        self._new: dict[str, FittedPart] = {}

    def run(self) -> None:
        """Raises LeaseLost and _HandedBack."""
        stored, parts = self._read()
        told = [task_history(one) for one in stored]
        for one, history in zip(stored, told, strict=True):
            if one.fingerprint not in parts:
                parts[one.fingerprint] = self._new[one.fingerprint] = FittedPart(kernel_json(fit_kernel(history)))
                self._go_on(len(parts))
        references = {one.fingerprint: one.reference for one in stored}
        model = model_of(references, parts)
        learned = self._learned_space(stored, told)
        likeness, tasks = likeness_of(learned.space), [one.task for one in told]
        by = "space" if learned.space is not None else "features"
        for place, (one, history) in enumerate(zip(stored[:_MOST_HELD_OUT], told, strict=False)):
            part = parts[one.fingerprint]
            if made_by(part.residuals) != by:
                weights = likeness.weights(history.task, tasks)
                weights[place] = 0.0
                found = residuals_json(residuals(history, told, weights, model), by)
                parts[one.fingerprint] = self._new[one.fingerprint] = FittedPart(part.kernel, found)
                self._go_on(len(parts))
        self._keep(len(parts))
        self._judge(stored, told, model_of(references, parts), likeness)

    def _read(self) -> tuple[list[StoredHistory], dict[str, FittedPart]]:
        """What the model covers, the newest first, and what is known of it."""
        with self._process.database.reading() as tx:
            covered = fitting.covered(tx, self._fit)
            known = fitting.parts(tx, self._fit.project_id)
        return covered, {one.fingerprint: known[one.fingerprint] for one in covered if one.fingerprint in known}

    def _learned_space(self, stored: Sequence[StoredHistory], told: Sequence[TaskHistory]) -> Progress:
        with self._process.database.reading() as tx:
            champion = fitting.in_use(tx, self._fit.project_id)
            own, theirs = (
                Progress(tuple(one.space_folds or ()), one.space_scores, fitting.space(tx, one.project_id, one.version))
                if one is not None
                else Progress()
                for one in (self._fit, champion)
            )
        return learn(stored, told, own, theirs, self._keep_space, self._stay)

    def _keep_space(self, found: Progress) -> None:
        with self._process.database.transaction() as tx:
            self._fit = fitting.keep_space(tx, self._fit, list(found.folds), found.scores, found.space)
        self._go_on(self._fit.fitted)

    def _go_on(self, fitted: int) -> None:
        """Keeps what is new now and then; once the time is over, the fit is handed back. Raises _HandedBack."""
        self._stay(fitted)
        if time.monotonic() > self._until:
            self._hand_back(fitted)

    def _stay(self, fitted: int | None = None) -> None:
        """Keeps the lease, however much time is over, unless this worker has to stop. Raises _HandedBack."""
        fitted = self._fit.fitted if fitted is None else fitted
        if self._process.draining() or os.getppid() != self._parent:
            self._hand_back(fitted)
        if time.monotonic() - self._kept_at > _KEEP_EVERY_S:
            self._keep(fitted)

    def _hand_back(self, fitted: int) -> None:
        self._keep(fitted)
        with self._process.database.transaction() as tx:
            fitting.hand_back(tx, self._fit)
        raise _HandedBack

    def _keep(self, fitted: int) -> None:
        with self._process.database.transaction() as tx:
            self._fit = fitting.keep(tx, self._fit, self._new, fitted)
        self._new, self._kept_at = {}, time.monotonic()

    def _judge(
        self, stored: Sequence[StoredHistory], told: Sequence[TaskHistory], model: FittedModel, likeness: Likeness
    ) -> None:
        with self._process.database.reading() as tx:
            champion = fitting.in_use(tx, self._fit.project_id)
            theirs = likeness_of(fitting.space(tx, self._fit.project_id, champion.version if champion else None))
            before = set(fitting.heard(tx, self._fit.project_id))
        # What the model in use knows is what must not suffer.
        known = [
            place
            for place, one in enumerate(stored)
            if champion is None or (one.fingerprint in before and one.created_at <= champion.covers_until)
        ]
        challenger = replaying.replay(told, _sample(known, self._fit.version), model, likeness)
        self._keep(self._fit.fitted)
        incumbent = None
        if champion is not None and len(known) < len(told):
            own = [told[place] for place in known]
            chosen = {place: number for number, place in enumerate(known)}
            sample = [chosen[one] for one in _sample(known, self._fit.version)]
            incumbent = replaying.replay(own, sample, model, theirs)
        refused = replaying.refusal(challenger, incumbent)
        covered = [one.fingerprint for one in stored]
        kept = {covered[place] for place in known} if champion is not None else set()
        beyond = [one for one in covered if one not in kept]
        with self._process.database.transaction() as tx:
            fitting.finish(tx, self._fit, covered, beyond, challenger.means(), refused)
        _log.info("fit_finished", project=self._fit.project_id, version=self._fit.version, refused=refused)


def _sample(places: Sequence[int], version: int) -> list[int]:
    """Another part of the histories for each version, the same for both sides."""
    if len(places) <= _MOST_REPLAYED:
        return list(places)
    generator = np.random.default_rng(version)
    return sorted(int(one) for one in generator.choice(places, _MOST_REPLAYED, replace=False))


def _main() -> None:
    """Behind everybody who answers somebody; asked to stop, it keeps what it has and hands back."""
    os.nice(10)
    configure_logging()
    signal.signal(signal.SIGTERM, lambda *_: this_process().stopping.set())
    fit_project(this_process(), sys.argv[1])


if __name__ == "__main__":
    _main()
