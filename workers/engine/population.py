"""Trials that are stepped together, each at its own age, epoch length and pace of learning.

A population has trials of one signature. They join and leave between any two steps: every member reports at its own
epoch boundary, and the others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.device import free_cache, is_out_of_memory
from workers.engine.pace import Pace
from workers.engine.rows import Rows
from workers.engine.slot import Diverged, Slot
from workers.engine.trial import FailureKind
from workers.engine.way import StepFailed, Way

_LOSSES_AT_ONCE = 16
"""How many updates' losses are read together: some devices work behind our back, and each reading costs."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochEnd:
    """A member at the end of an epoch (with `metrics`), or out of training (with `failure`)."""

    slot: Slot
    seconds: float
    metrics: dict[str, float]
    failure: str | None = None
    kind: FailureKind | None = None


class Population:
    """Trials stepped by one `way`. `rows` are the matrices in which the way wants them, if it does.

    `progress` counts the epochs that its members have advanced on average: populations that share a device take
    turns by it.
    """

    def __init__(self, way: Way, rows: Rows | None, progress: float = 0.0) -> None:
        self.members: list[Slot] = []
        self.pace = Pace()
        self.progress = progress
        self._way, self._rows = way, rows
        self._changed = True
        self._left = 0

    def join(self, slot: Slot) -> None:
        """Adds a trial, after the others."""
        self.members.append(slot)
        self._changed = True
        self.pace.forget()
        if self._rows is not None:
            try:
                self._rows.place(self.members, len(self.members) - 1)
            except Exception:
                self.members.pop()
                raise

    def leave(self, slot: Slot) -> None:
        """Removes a trial, which gets rows of its own; the last member takes its place."""
        position = self.members.index(slot)
        last = self.members.pop()
        self._changed = True
        self.pace.forget()
        if self._rows is not None:
            slot.move_out()
        if last is not slot:
            self.members[position] = last
            if self._rows is not None:
                self._rows.place(self.members, position)

    def advance(self, deadline: float | None) -> list[EpochEnd]:
        """Steps until a member reaches the end of an epoch or fails; empty when `deadline` (perf_counter) came first.

        Members that fail, or have trained all their epochs, leave. Raises StepFailed.
        """
        ends: list[EpochEnd] = []
        waiting: list[Tensor] = []  # the losses (R, n) of updates that were not read yet
        while not ends:
            if self._changed or self._left == 0:
                self._begin()
            if self._left:
                ends = self._step(waiting)
            ended = [] if self._left else [member for member in self.members if member.left == 0]
            late = deadline is not None and time.perf_counter() >= deadline
            if waiting and (ended or late or sum(map(len, waiting)) >= _LOSSES_AT_ONCE):
                ends += self._read(waiting)
                ended = [member for member in ended if member in self.members]
            if ended:
                ends += self._close(ended)
            if late:
                break
        return ends

    def _begin(self) -> None:
        """Prepares the steps until the next end of an epoch; that may have come already."""
        members = self.members
        if self._changed:
            self._way.bind(members)
        self._changed = False
        self._left = min(member.left for member in members)
        if self._left:
            for member in members:
                member.begin_epoch()
            self._way.begin_epochs(members)

    def _step(self, waiting: list[Tensor]) -> list[EpochEnd]:
        """One update of everybody, or some. A single member that raises is out, and returned; so are those, when a step
        fails, whose divergence is found in the losses that wait: it came first.
        """
        started = time.perf_counter()
        members = self.members
        try:
            losses = self._way.step(members)
        except Exception as error:
            ends = self._read(waiting)
            if ends:
                return ends
            if isinstance(error, StepFailed) or len(members) > 1:
                raise
            return [self._failed(members[0], error)]
        waiting.append(losses)
        updates = len(losses)
        self._left -= updates
        share = (time.perf_counter() - started) / len(members)
        self.pace.add(share / updates)
        for member in members:
            member.update += updates
            member.seconds += share
        self.progress += updates / members[0].batches.updates_per_epoch
        return []

    def _read(self, waiting: list[Tensor]) -> list[EpochEnd]:
        """Takes in the losses of the last steps, which it forgets; those that diverged leave."""
        if not waiting:
            return []
        table = torch.cat(waiting).t().tolist()
        waiting.clear()
        ends = []
        for member, losses in zip(tuple(self.members), table, strict=True):
            try:
                member.take(losses)
            except Diverged as error:
                ends.append(self._out(member, str(error), FailureKind.DIVERGED))
        return ends

    def _close(self, ended: Sequence[Slot]) -> list[EpochEnd]:
        """Evaluates members at the end of their epoch, and ends it."""
        started = time.perf_counter()
        try:
            evaluated = self._way.evaluate(ended)
        except StepFailed:
            raise
        except Exception as error:
            if len(self.members) > 1:
                raise
            return [self._failed(ended[0], error)]
        share = (time.perf_counter() - started) / len(ended)
        return [self._end(member, metrics, share) for member, metrics in zip(ended, evaluated, strict=True)]

    def _end(self, member: Slot, metrics: dict[str, float], seconds: float) -> EpochEnd:
        seconds += member.seconds
        try:
            reported = member.close_epoch(metrics)
        except Diverged as error:
            return self._out(member, str(error), FailureKind.DIVERGED)
        if member.done:
            self.leave(member)
        return EpochEnd(member, seconds, reported)

    def _failed(self, member: Slot, error: Exception) -> EpochEnd:
        where = f"at epoch {member.epoch + 1}, update {member.update + 1}"
        if is_out_of_memory(error):
            free_cache(member.data.device)
            return self._out(member, f"out of memory {where}: {first_line(error)}", FailureKind.OUT_OF_MEMORY)
        _log.error("trial %s failed %s", member.spec.trial_id, where, exc_info=error)
        return self._out(member, f"{type(error).__name__} {where}: {first_line(error)}", FailureKind.ERROR)

    def _out(self, member: Slot, failure: str, kind: FailureKind) -> EpochEnd:
        self.leave(member)
        return EpochEnd(member, member.seconds, {}, failure, kind)


def first_line(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
