"""One experiment: watching it, steering it, and the ask/tell loop of those that the client trains itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsFloat

from foretune.client.stream import DEFAULT_PATIENCE_S
from foretune.client.trial import Trial
from foretune.errors import BudgetExhausted, ClientError, Conflict, LeaseLost, TrialInfeasible
from foretune.events import Event
from foretune.json_types import JsonValue
from foretune.spaces import AnyParameter
from foretune.states import ExperimentState, TrialState
from foretune.wire import experiments as wire
from foretune.wire import trials as trial_wire
from foretune.wire.recommendations import Recommendations

if TYPE_CHECKING:
    from foretune.client.experiments import Experiments

_PAUSED_POLL_S = 2.0
ExportFormat = Literal["csv", "jsonl", "parquet"]


class Experiment:
    """A handle on one experiment. `info` is what the service last said about it; `refresh` asks again."""

    def __init__(self, experiments: Experiments, info: wire.Experiment) -> None:
        self._experiments = experiments
        self.info = info

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def state(self) -> ExperimentState:
        """As last heard; `refresh` asks again."""
        return self.info.state

    @property
    def best(self) -> wire.Best | None:
        """The best trial so far, as last heard; `refresh` asks again."""
        return self.info.best

    def __repr__(self) -> str:
        return f"<Experiment {self.id} {self.name!r} {self.state}>"

    def refresh(self) -> Experiment:
        """Asks the service for the present state; gives this handle again."""
        self.info = self._experiments.read(self.id)
        return self

    def wait(self, timeout_s: float | None = None) -> Experiment:
        """Returns when the experiment is finished. Raises ClientError with code `timeout` after `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.1
        while not self.refresh().state.finished:
            left_s = pause_s if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise ClientError(f"{self.id} is still {self.state} after {timeout_s:g} s", code="timeout")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2.0, 1.3 * pause_s)
        return self

    def stream(self, after: int = 0, give_up_after_s: float = DEFAULT_PATIENCE_S) -> Iterator[Event]:
        """Its events after number `after`, as they happen, until it is finished; see `Client.stream`."""
        return self._experiments.stream(self.id, after, give_up_after_s)

    def list_trials(self, state: TrialState | str | None = None) -> Iterator[trial_wire.Trial]:
        """The trials that there are, in order of creation."""
        return self._experiments.list_trials(self.id, state)

    def recommendation(self) -> Recommendations:
        """The best hyperparameters seen and predicted, given this experiment's own results."""
        return self._experiments.recommendation(self.id)

    def export(self, path: str | PathLike[str], format: ExportFormat | None = None) -> Path:  # noqa: A002
        """Saves all trials; the format follows the file's ending unless given. CSV has no curves."""
        return self._experiments.export(self.id, path, format)

    def pause(self) -> Experiment:
        """No new epochs are trained until `resume`. Raises IllegalTransition when it is finished."""
        return self._settle(self._experiments.pause(self.id))

    def resume(self) -> Experiment:
        """Goes on after `pause`. Raises IllegalTransition when it is finished."""
        return self._settle(self._experiments.resume(self.id))

    def cancel(self) -> Experiment:
        """Ends it now; all results stay. Raises IllegalTransition when it is finished."""
        return self._settle(self._experiments.cancel(self.id))

    def patch(
        self,
        *,
        name: str | None = None,
        budget: wire.BudgetPatch | Mapping[str, JsonValue] | None = None,
        space: Sequence[AnyParameter | Mapping[str, JsonValue]] | None = None,
        parallelism: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Raises a budget, widens the space, renames.

        >>> experiment.patch(budget={"max_trials": 128})  # doctest: +SKIP
        """
        return self._settle(
            self._experiments.patch(
                self.id, name=name, budget=budget, space=space, parallelism=parallelism, labels=labels
            )
        )

    def delete(self) -> None:
        """Deletes it with all its trials. Raises Conflict while it is not finished."""
        self._experiments.delete(self.id)

    # Ask and tell.

    def ask(self, wait_s: float = 2.0) -> Trial:
        """The next setting to train, leased to this process; a heartbeat keeps the lease until the trial ends.

        The service waits up to `wait_s` for a proposal that has seen every result told so far. Raises BudgetExhausted
        when all trials are out.
        """
        return self._experiments.ask(self.id, 1, wait_s)[0]

    def ask_many(self, count: int, wait_s: float = 2.0) -> Sequence[Trial]:
        """Up to `count` settings to train side by side: each the best given that the others run too."""
        return self._experiments.ask(self.id, count, wait_s)

    def trials(self, wait_s: float = 2.0) -> Iterator[Trial]:
        """One trial after another, until the budget is out or the experiment is finished; waits while it is paused.

        >>> for trial in experiment.trials():  # doctest: +SKIP
        ...     for epoch, lr in enumerate(trial.learning_rates, start=1):
        ...         if trial.report(epoch, train_one_epoch(lr, **trial.hyperparameters)).stop:
        ...             break

        When the loop comes back for the next trial, the last one is ended with what it reported, as at the end of a
        `with` block, in the same call. When the loop is left by `break` or an exception, the open trial is handed back.
        """
        following: Trial | None = None
        while (trial := following or self._next(wait_s)) is not None:
            try:
                yield trial
                following = trial.settle(ask_wait_s=wait_s)
            finally:
                if not trial.closed:
                    trial.hand_back()

    def optimize(
        self,
        objective: Callable[[Trial], SupportsFloat | None],
        n_jobs: int = 1,
        *,
        catch: tuple[type[Exception], ...] = (),
        wait_s: float = 2.0,
    ) -> Experiment:
        """Calls `objective` with trial after trial, in `n_jobs` threads, until the budget is out.

        What it returns is the trial's final value; None leaves it at the last report. TrialInfeasible ends that
        trial alone; any other exception fails the trial and ends the loop, unless it is one of `catch`. A trial whose
        lease was lost is passed over.

        >>> experiment.optimize(lambda trial: (trial.hyperparameters["x"] - 2) ** 2)  # doctest: +SKIP
        """
        if n_jobs < 1:
            raise ClientError(f"n_jobs must be at least 1, not {n_jobs}")
        work = _Work(self, objective, catch, wait_s)
        if n_jobs == 1:
            work.run()
        else:
            threads = [
                threading.Thread(target=work.run, name=f"foretune-trial-{i}", daemon=True) for i in range(n_jobs)
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException:
                work.over.set()  # Ctrl-C: running objectives cannot be stopped, but no new trial begins
                raise
        if work.error is not None:
            raise work.error
        return self.refresh()

    def _next(self, wait_s: float, over: threading.Event | None = None) -> Trial | None:
        """The next trial; None when there will be no more, or `over` is set. Waits while the experiment is paused."""
        over = over or threading.Event()
        while not over.is_set():
            try:
                return self.ask(wait_s)
            except BudgetExhausted:
                return None
            except Conflict as conflict:
                if conflict.code == "experiment_finished":
                    return None
                if conflict.code != "experiment_paused":
                    raise
            over.wait(_PAUSED_POLL_S)
        return None

    def _settle(self, info: wire.Experiment) -> Experiment:
        self.info = info
        return self


class _Work:
    """What the threads of `optimize` share: the first error ends all of them."""

    def __init__(
        self,
        experiment: Experiment,
        objective: Callable[[Trial], SupportsFloat | None],
        catch: tuple[type[Exception], ...],
        wait_s: float,
    ) -> None:
        self._experiment = experiment
        self._objective = objective
        self._catch = catch
        self._wait_s = wait_s
        self.over = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        following: Trial | None = None
        try:
            while (trial := following or self._experiment._next(self._wait_s, self.over)) is not None:
                following = self._one(trial)
            self.over.set()
        except Exception as error:  # noqa: BLE001 - handed to the thread that called optimize
            self.error = self.error or error
            self.over.set()

    def _one(self, trial: Trial) -> Trial | None:
        """Does one trial; gives the next one, if it came with the end of this."""
        try:
            with trial:
                value = self._objective(trial)
                return trial.settle(value, ask_wait_s=None if self.over.is_set() else self._wait_s)
        except (LeaseLost, TrialInfeasible):
            pass
        except self._catch:
            pass
        return None
