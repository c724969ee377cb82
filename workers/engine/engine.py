"""The engine: slots, each training one trial, advanced together.

    engine = Engine(network, data)
    engine.admit(spec, checkpoint=None)
    while engine.live:
        for report in engine.advance():
            ...                                    # store it; then keep the trial, or
            engine.snapshot(report.trial_id)       # freeze it and
            engine.release(report.trial_id)        # give its slot to another

A trial's curve depends on its spec, the network and the data alone, never on its neighbours. Trials of one signature
are stepped together in populations, which take turns; see `workers.engine.population`.
"""

from __future__ import annotations

import time

import torch

from foretune.errors import Conflict, ForetuneError, NotFound, TrialInfeasible
from workers.datasets.prepare import PreparedData
from workers.engine import streams
from workers.engine.capacity import FIRST, MemoryGauge, capacity_on_cpu
from workers.engine.checkpoint import Checkpoint
from workers.engine.device import Precision, choose_device, configure, free_cache, is_out_of_memory
from workers.engine.device_data import on_device
from workers.engine.housing import Housing
from workers.engine.population import EpochEnd, first_line
from workers.engine.slot import Slot
from workers.engine.trial import EpochReport, TrialSpec
from workers.networks import Network


class Engine:
    """Trains trials of one network on one prepared data set.

    `device` is the fastest there is unless given, `precision` what pays there. `capacity` is the number of slots;
    unless it is given, the first trial decides on a CPU, and memory on CUDA as soon as trials have trained. Not
    thread-safe: call it from one thread.
    """

    def __init__(
        self,
        network: Network,
        data: PreparedData,
        device: torch.device | str | None = None,
        *,
        capacity: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.network, self.data = network, data
        self.device = choose_device() if device is None else torch.device(device)
        configure(self.device)
        self._precision = precision
        self._data = on_device(data, self.device)
        self._slots: dict[str, Slot] = {}
        self._failures: dict[str, str] = {}
        self._housing = Housing(self._data)
        self.capacity = FIRST if capacity is None else capacity
        self._chosen = capacity is not None
        self._gauge = MemoryGauge(self.device) if capacity is None and self.device.type == "cuda" else None

    @property
    def held(self) -> tuple[str, ...]:
        """The trials in slots, in the order of their admission: those that train, are done, or failed."""
        return tuple(self._slots)

    @property
    def live(self) -> tuple[str, ...]:
        """The trials that still train."""
        return tuple(
            trial_id for trial_id, slot in self._slots.items() if trial_id not in self._failures and not slot.done
        )

    @property
    def free(self) -> int:
        """How many more trials can be admitted now."""
        return max(0, self.capacity - len(self._slots))

    def admit(self, spec: TrialSpec, checkpoint: Checkpoint | None = None) -> None:
        """Puts a trial into a free slot, at its start or where `checkpoint` stands.

        Raises Conflict without a free slot or when it is held already, InvalidConfiguration, InvalidCheckpoint, and
        TrialInfeasible when the device has no memory for it.
        """
        if spec.trial_id in self._slots:
            raise Conflict(f"trial {spec.trial_id!r} is in a slot already", code="already_admitted")
        if not self.free:
            raise Conflict(f"all {self.capacity} slots are taken", code="no_free_slot")
        try:
            slot = Slot(self.network, self._data, spec, checkpoint, self._precision)
            if not slot.done:
                self._housing.admit(slot)
        except ForetuneError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_cache(self.device)
            raise TrialInfeasible(f"out of memory before epoch 1: {first_line(error)}", epoch=0) from error
        self._slots[spec.trial_id] = slot
        if not self._chosen and self.device.type == "cpu":
            self.capacity, self._chosen = capacity_on_cpu(slot), True

    def advance(self, timeout_s: float | None = None) -> list[EpochReport]:
        """Trains until at least one slot reaches the end of an epoch or fails, and reports that.

        Empty when nothing is live, or when `timeout_s` is over; the next call then goes on where this one stopped,
        and a snapshot holds also what is between. One update may take longer than the time left.
        """
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        with streams.kept_global_state():
            ends = self._housing.advance(deadline)
        if ends and self._gauge is not None:
            self.capacity, self._gauge = self._gauge.capacity(len(self._slots)), None
        return [self._report(end) for end in ends]

    def snapshot(self, trial_id: str) -> Checkpoint:
        """The trial as it stands; it goes on unchanged. Raises NotFound, or TrialInfeasible after a failure."""
        slot = self._slot(trial_id)
        if trial_id in self._failures:
            raise TrialInfeasible(f"nothing to keep: {self._failures[trial_id]}", epoch=slot.epoch + 1)
        return slot.snapshot()

    def release(self, trial_id: str) -> None:
        """Empties the trial's slot. Raises NotFound."""
        self._housing.release(self._slot(trial_id))
        del self._slots[trial_id]
        self._failures.pop(trial_id, None)

    def _report(self, end: EpochEnd) -> EpochReport:
        trial_id = end.slot.spec.trial_id
        if end.failure is None:
            return EpochReport(trial_id, end.slot.epoch, end.metrics, end.seconds, finished=end.slot.done)
        self._failures[trial_id] = end.failure
        return EpochReport(
            trial_id, end.slot.epoch + 1, {}, end.seconds, end.failure, finished=True, failure_kind=end.kind
        )

    def _slot(self, trial_id: str) -> Slot:
        if trial_id not in self._slots:
            raise NotFound(f"trial {trial_id!r} is in no slot; there are {', '.join(self._slots) or 'none'}")
        return self._slots[trial_id]
