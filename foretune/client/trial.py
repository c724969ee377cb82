"""A trial in this process's hands: its hyperparameters, its reports, its end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, SupportsFloat

from foretune.client.answers import Reply
from foretune.client.leases import Heartbeat, beat_interval_s
from foretune.client.transport import Transport, segment
from foretune.errors import ClientError, Conflict, ConnectionFailed, ForetuneError, LeaseLost, TrialInfeasible
from foretune.json_types import JsonObject, JsonValue
from foretune.wire.trials import Completed, HeartbeatAnswer, Lease, MeasurementsAnswer, Prediction, Suggestion
from foretune.wire.trials import Decision as Action

_BEAT_TIMEOUT_S = 5.0
_LONGEST_REASON = 2000
_ENDED_BY_SERVICE = "trial_finished"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the service says after a report: go on, freeze the trial, or stop it."""

    action: Action
    lr_factor: float = 1.0
    """Multiply the scheduled learning rate by it."""

    @property
    def stop(self) -> bool:
        """Whether to leave the training loop now; true for `pause` too."""
        return self.action is not Action.CONTINUE


class Trial:
    """One hyperparameter setting to train. Made by `Experiment.ask`; use it as a context manager.

    >>> with experiment.ask() as trial:  # doctest: +SKIP
    ...     for epoch in range(1, 11):
    ...         loss = train_one_epoch(lr=trial.learning_rate(epoch), **trial.hyperparameters)
    ...         if trial.report(epoch, loss).stop:
    ...             break

    At the end of the block the trial is completed with its last report, unless it was completed before. An exception
    fails the trial with its text as the reason; TrialInfeasible declares it infeasible; Ctrl-C hands it back: its
    lease runs out and the service gives it to someone else.
    """

    def __init__(self, transport: Transport, heartbeat: Heartbeat, suggestion: Suggestion, reply: Reply) -> None:
        self.id = suggestion.id
        self.number = suggestion.number
        self.hyperparameters: dict[str, JsonValue] = suggestion.hyperparameters
        self.lr_schedule = suggestion.lr_schedule
        self.origin = suggestion.origin
        self.predicted: Prediction | None = suggestion.predicted
        self._transport = transport
        self._heartbeat = heartbeat
        self._path = f"/v1/trials/{segment(suggestion.id)}"
        self._lost: LeaseLost | None = None
        self._closed = False
        self._last: tuple[int, float] | None = None
        self._decision = Decision(Action.CONTINUE)
        self._token, self._beat_at = "", 0.0
        self._renew(suggestion.lease, reply)
        heartbeat.keep(self)

    @property
    def learning_rates(self) -> list[float]:
        """The scheduled learning rate of each epoch, without `lr_factor`; empty when the space has no schedule."""
        return list(self.lr_schedule.values) if self.lr_schedule else []

    def learning_rate(self, epoch: int) -> float:
        """The learning rate to use in `epoch` (from 1), corrected by the last decision's `lr_factor`.

        Raises ClientError when the trial has no schedule or the schedule no such epoch.
        """
        if self.lr_schedule is None:
            raise ClientError(f"{self.id} has no learning-rate schedule; its space has no parameter of that role")
        if not 1 <= epoch <= len(self.lr_schedule.values):
            raise ClientError(f"the schedule has the epochs 1 … {len(self.lr_schedule.values)}, not {epoch}")
        return self.lr_schedule.values[epoch - 1] * self._decision.lr_factor

    @property
    def should_stop(self) -> bool:
        """Whether the last decision was to leave the training loop."""
        return self._decision.stop

    @property
    def closed(self) -> bool:
        """Whether the trial was completed or handed back."""
        return self._closed

    def report(
        self,
        epoch: int,
        value: SupportsFloat | None,
        *,
        seconds: float | None = None,
        metrics: Mapping[str, SupportsFloat] | None = None,
    ) -> Decision:
        """Reports one epoch (from 1): the experiment's metric, and whatever else is worth keeping.

        A value that is not finite is reported as such; then end the trial, it counts as infeasible. Metrics that are
        not finite are left out. Repeating an epoch is harmless. When the service ended the trial meanwhile, because
        the experiment is finished, the decision is to stop. Raises LeaseLost when the trial is no longer ours.
        """
        number = _finite(value)
        measurement: JsonObject = {"epoch": epoch, "value": number}
        if seconds is not None:
            measurement["seconds"] = float(seconds)
        if metrics:
            finite = {name: _finite(metric) for name, metric in metrics.items()}
            measurement["metrics"] = {name: metric for name, metric in finite.items() if metric is not None}
        self._last = (epoch, math.nan if number is None else number)
        reply = self._post("measurements", {"measurements": [measurement]})
        if reply is None:
            self._decision = Decision(Action.STOP, self._decision.lr_factor)
            return self._decision
        answer = reply.as_model(MeasurementsAnswer)
        self._renew(answer.lease, reply)
        self._decision = Decision(answer.decision, answer.lr_factor)
        return self._decision

    def complete(self, value: SupportsFloat | None = None) -> None:
        """Ends the trial with its final value, the last reported one unless given; NaN makes it infeasible.

        Changes nothing when the service ended the trial meanwhile, because the experiment is finished. Raises
        LeaseLost when the trial is no longer ours.
        """
        self._finish(self._ending(value))

    def complete_and_ask(self, value: SupportsFloat | None = None, wait_s: float = 2.0) -> Trial | None:
        """Like `complete`, and asks for the experiment's next trial in the same call, which has seen this value.

        None when there is none to get now; `Experiment.ask` says why, or waits for the end of a pause.

        >>> trial = experiment.ask()  # doctest: +SKIP
        >>> while trial is not None:  # doctest: +SKIP
        ...     trial = trial.complete_and_ask(objective(**trial.hyperparameters))
        """
        return self._finish(self._ending(value), wait_s)

    def _ending(self, value: SupportsFloat | None) -> JsonObject:
        """What `complete` tells. Raises ClientError when there is no value."""
        number = math.nan
        if value is not None:
            number = float(value)
        elif self._last is not None:
            number = self._last[1]
        else:
            raise ClientError(f"{self.id} has no value: report one, or call complete(value) or infeasible(reason)")
        if math.isfinite(number):
            return {"value": number}
        where = f" after epoch {self._last[0]}" if self._last and value is None else ""
        return _infeasible(f"the value{where} is {number}")

    def infeasible(self, reason: str) -> None:
        """Ends the trial as one that cannot be trained: diverged, out of memory, forbidden. It counts as the worst."""
        self._finish(_infeasible(reason))

    def fail(self, reason: str) -> None:
        """Ends the trial as failed for a reason that says nothing about its hyperparameters: a bug, a lost disk."""
        self._finish({"outcome": "failed", "reason": reason[:_LONGEST_REASON]})

    def hand_back(self) -> None:
        """Stops here without a result; when the lease runs out, the service gives the trial to someone else."""
        self._closed = True
        self._heartbeat.drop(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        match error:
            case None:
                self.settle()
            case TrialInfeasible():
                self._finish_quietly(_infeasible(error.message))
            case LeaseLost() | ConnectionFailed():
                self.hand_back()
            case Exception():
                reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
                self._finish_quietly({"outcome": "failed", "reason": reason})
            case _:
                self.hand_back()

    def settle(self, value: SupportsFloat | None = None, *, ask_wait_s: float | None = None) -> Trial | None:
        """Ends the trial, if it is still open: with `value`, or as its reports say.

        With `ask_wait_s` it asks for the next one as `complete_and_ask` does, and gives it. Raises ClientError when
        there is neither value nor report: then the trial is failed, and the loop has a bug.
        """
        if self._closed:
            return None
        if value is None and self._decision.action is Action.PAUSE:
            # Frozen, not ended: the service decides whether it is thawed.
            self.hand_back()
            return None
        if value is None and self._last is None:
            message = "ended without report() or complete()"
            self.fail(message)
            raise ClientError(f"{self.id} {message}")
        return self._finish(self._ending(value), ask_wait_s)

    def __repr__(self) -> str:
        return f"<Trial {self.number} {self.id} {self.hyperparameters}>"

    # The heartbeat's side.

    @property
    def beat_at(self) -> float:
        return self._beat_at

    def postpone(self, delay_s: float) -> None:
        self._beat_at = time.monotonic() + delay_s

    def beat(self) -> bool:
        if self._closed:
            return False
        try:
            reply = self._transport.call(
                "POST",
                f"{self._path}/heartbeat",
                json_body={"lease": self._token},
                timeout_s=_BEAT_TIMEOUT_S,
                give_up_after_s=0.0,
            )
        except LeaseLost as lost:
            # It is raised where the user can act on it: at the next report.
            self._lost = lost
            return False
        except Conflict:
            return False  # the service has ended the trial; the next report hears of it
        self._renew(reply.as_model(HeartbeatAnswer).lease, reply)
        return True

    def _renew(self, lease: Lease, reply: Reply) -> None:
        interval_s = beat_interval_s(lease.expires_at, reply.server_time, datetime.now(UTC))
        self._token, self._beat_at = lease.token, time.monotonic() + interval_s

    def _post(self, verb: str, body: JsonObject, ask_wait_s: float | None = None) -> Reply | None:
        """The answer; None when the service has ended the trial by itself, which closes it here too."""
        if self._closed:
            raise ClientError(f"{self.id} was ended already")
        if self._lost is not None:
            self.hand_back()
            raise self._lost
        try:
            return self._transport.call(
                "POST",
                f"{self._path}/{verb}",
                json_body={"lease": self._token, **body},
                creates=ask_wait_s is not None,
                timeout_s=ask_wait_s,
            )
        except LeaseLost:
            self.hand_back()
            raise
        except Conflict as conflict:
            if conflict.code != _ENDED_BY_SERVICE:
                raise
            self.hand_back()
            return None

    def _finish(self, body: JsonObject, ask_wait_s: float | None = None) -> Trial | None:
        """Ends the trial; gives the next one, if `ask_wait_s` is given and there is one."""
        if ask_wait_s is not None:
            body = {**body, "next": {"count": 1, "wait_seconds": ask_wait_s}}
        reply = self._post("complete", body, ask_wait_s)
        self._closed = True
        self._heartbeat.drop(self)
        if ask_wait_s is None or reply is None:
            return None
        following = reply.as_model(Completed).next
        if following is None or not following.trials:
            return None
        return Trial(self._transport, self._heartbeat, following.trials[0], reply)

    def _finish_quietly(self, body: JsonObject) -> None:
        """Ends the trial while another error is on its way, which must not be hidden by one of ours."""
        try:
            self._finish(body)
        except ForetuneError as error:
            self.hand_back()
            if not isinstance(error, LeaseLost | ConnectionFailed):
                raise


def _infeasible(reason: str) -> JsonObject:
    return {"outcome": "infeasible", "reason": reason[:_LONGEST_REASON]}


def _finite(value: SupportsFloat | None) -> float | None:
    """`value` as a number JSON can say; None for NaN and infinities."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None
