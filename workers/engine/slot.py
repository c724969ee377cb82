"""One trial in training: its weights, optimizer, position and random streams, stepped by a plain loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foretune.errors import InvalidConfiguration
from foretune.json_types import JsonObject
from foretune.wire.datasets import Task
from workers.datasets.prepare import PreparedData
from workers.engine import optimizers, streams
from workers.engine.batches import Batches, RowBatches, TextBatches
from workers.engine.checkpoint import Checkpoint, InvalidCheckpoint, Position
from workers.engine.cost import cost
from workers.engine.device import Precision, autocast, choose_precision
from workers.engine.divergence import DivergenceMonitor
from workers.engine.evaluation import evaluate, training_loss, trivial_loss
from workers.engine.flat import FlatParameters
from workers.engine.loss_scale import LossScale
from workers.engine.settings import TrainingSettings
from workers.engine.trial import TrialSpec
from workers.networks import DataShape, Network
from workers.networks.dropout import active_dropouts, set_noise
from workers.networks.reading import read_config

_LOSSES_AT_ONCE = 16
"""How many updates' losses are read together from a device that works behind our back; a CPU's one by one."""


class Diverged(Exception):
    """A loss of this trial is NaN, infinite or absurd."""


@dataclass(frozen=True, eq=False)
class DeviceData:
    """The data where training reads them: on the device when they fit, else in main memory."""

    prepared: PreparedData
    device: torch.device
    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor

    @property
    def shape(self) -> DataShape:
        data = self.prepared
        return DataShape(data.task, tuple(data.input_shape), data.output_size)


class Slot:
    """Holds one trial; `train` continues it. Raises InvalidConfiguration or InvalidCheckpoint when it cannot."""

    def __init__(
        self,
        network: Network,
        data: DeviceData,
        spec: TrialSpec,
        checkpoint: Checkpoint | None,
        precision: Precision | None,
    ) -> None:
        self.spec = spec
        self._network, self._data, self._device = network, data, data.device
        self._values: JsonObject = network.resolve(spec.configuration)
        self._settings = read_config(TrainingSettings, self._values)
        self._streams = streams.streams(spec.seed)
        self._batches = _batches(data, self._settings)
        self.updates = spec.max_epochs * self._batches.updates_per_epoch
        if checkpoint is not None:
            self._check_origin(checkpoint)
        self._precision = precision or _precision(network, self._values, data, self._settings)
        self._module = self._build(checkpoint)
        self._flat = FlatParameters(self._module)
        self._state = optimizers.initial_state(self._settings.optimizer, self._flat.weights)
        self._dropouts = active_dropouts(self._module)
        self._monitor = DivergenceMonitor(trivial_loss(data.prepared))
        self._scale = LossScale() if self._precision == "float16" else None
        self.epoch = self.update = 0
        self._loss_sum, self._rows_seen, self._seconds = 0.0, 0, 0.0
        self._ordered_epoch = -1
        if checkpoint is not None:
            self._restore(checkpoint)

    @property
    def done(self) -> bool:
        """Whether all its epochs are trained."""
        return self.epoch >= self.spec.max_epochs

    def train(self, deadline: float | None) -> tuple[dict[str, float], float] | None:
        """Trains to the end of the epoch: its metrics and seconds, or None when `deadline` (perf_counter) came first.

        Raises Diverged.
        """
        started = time.perf_counter()
        end = (self.epoch + 1) * self._batches.updates_per_epoch
        waiting: list[tuple[Tensor, int]] = []
        losses_at_once = 1 if self._device.type == "cpu" else _LOSSES_AT_ONCE
        self._module.train()
        while self.update < end:
            waiting.append(self._step())
            if len(waiting) >= losses_at_once or self.update == end:
                self._read(waiting)
                waiting = []
                if deadline is not None and time.perf_counter() >= deadline and self.update < end:
                    self._seconds += time.perf_counter() - started
                    return None
        metrics = self._metrics()
        seconds = self._seconds + time.perf_counter() - started
        self._loss_sum, self._rows_seen, self._seconds = 0.0, 0, 0.0
        self.epoch += 1
        return metrics, seconds

    def snapshot(self) -> Checkpoint:
        scale = self._scale or LossScale(1.0)
        return Checkpoint(
            network=self._network.name,
            data_key=self._data.prepared.key,
            seed=self.spec.seed,
            configuration=dict(self._values),
            device_kind=self._device.type,
            position=Position(
                epoch=self.epoch,
                update=self.update,
                epoch_loss_sum=self._loss_sum,
                epoch_rows=self._rows_seen,
                first_loss=self._monitor.first_loss,
                precision=self._precision,
                loss_scale=scale.scale,
                quiet_updates=scale.quiet_updates,
            ),
            weights={name: _own(tensor) for name, tensor in self._module.state_dict().items()},
            optimizer_state={name: _own(tensor) for name, tensor in self._state.items()},
        )

    def _step(self) -> tuple[Tensor, int]:
        """One update; its loss, still on the device, and its number of rows."""
        self._begin_epoch()
        noise = streams.at(self._streams.noise, self.update)
        streams.seed_global(noise, self._device)
        set_noise(self._dropouts, noise)
        inputs, targets = self._batches.batch(self.update - self.epoch * self._batches.updates_per_epoch)
        with autocast(self._device, self._precision):
            outputs = self._module(inputs)
        loss = training_loss(outputs, targets, self._data.prepared.task, self._settings.label_smoothing)
        self._flat.gradient.zero_()
        scaled = loss if self._scale is None else loss * self._scale.scale
        scaled.backward()  # type: ignore[no-untyped-call]
        if self._scale is None or self._scale.unscale(self._flat.gradient):
            learning_rate = self.spec.schedule.learning_rate(self.update, self.updates)
            optimizers.update(
                self._flat.weights,
                self._flat.gradient,
                self._state,
                self._settings,
                learning_rate,
                self.update + 1,
            )
        self.update += 1
        return loss.detach(), len(inputs)

    def _begin_epoch(self) -> None:
        if self._ordered_epoch != self.epoch:
            self._batches.start_epoch(streams.at(self._streams.order, self.epoch))
            self._ordered_epoch = self.epoch

    def _read(self, waiting: Sequence[tuple[Tensor, int]]) -> None:
        """Takes in the losses of the last updates. Raises Diverged at the first bad one."""
        losses = [float(waiting[0][0])] if len(waiting) == 1 else torch.stack([loss for loss, _ in waiting]).tolist()
        first_update = self.update - len(waiting)
        for position, (loss, (_, rows)) in enumerate(zip(losses, waiting, strict=True)):
            problem = self._monitor.problem_with(loss)
            if problem is not None:
                update = first_update + position + 1
                raise Diverged(f"diverged at epoch {self.epoch + 1}, update {update}: loss {problem}")
            self._loss_sum += loss * rows
            self._rows_seen += rows

    def _metrics(self) -> dict[str, float]:
        metrics = evaluate(
            self._module,
            self._data.prepared,
            self._data.val_x,
            self._data.val_y,
            context_length=self._context_length,
            device=self._device,
            autocast=autocast(self._device, self._precision),
        )
        problem = self._monitor.problem_with(metrics["val_loss"])
        if problem is None and not all(math.isfinite(value) for value in metrics.values()):
            problem = "leads to metrics that are not finite"
        if problem is not None:
            raise Diverged(f"diverged at epoch {self.epoch + 1}, update {self.update}: validation loss {problem}")
        metrics["train_loss"] = self._loss_sum / self._rows_seen
        metrics["learning_rate"] = self.spec.schedule.learning_rate(self.update - 1, self.updates)
        return metrics

    @property
    def _context_length(self) -> int:
        return self._batches.context_length if isinstance(self._batches, TextBatches) else 0

    def _build(self, checkpoint: Checkpoint | None) -> nn.Module:
        with streams.kept_global_state():
            streams.seed_global(self._streams.initialisation, torch.device("cpu"))
            try:
                module = self._network.build(self._values, self._data.shape)
            except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise InvalidConfiguration(f"network {self._network.name!r} cannot be built: {error}") from error
        if checkpoint is not None:
            try:
                module.load_state_dict(dict(checkpoint.weights))
            except RuntimeError as error:
                raise InvalidCheckpoint(f"the weights do not fit network {self._network.name!r}: {error}") from error
        return module.to(self._device)

    def _check_origin(self, checkpoint: Checkpoint) -> None:
        mine = {
            "network": (self._network.name, checkpoint.network),
            "data": (self._data.prepared.key, checkpoint.data_key),
            "seed": (self.spec.seed, checkpoint.seed),
            "configuration": (self._values, checkpoint.configuration),
        }
        for part, (here, there) in mine.items():
            if here != there:
                raise InvalidCheckpoint(f"the checkpoint belongs to another {part}: {there!r}, not {here!r}")

    def _restore(self, checkpoint: Checkpoint) -> None:
        position = checkpoint.position
        names = set(checkpoint.optimizer_state)
        if names != set(self._state) or any(
            checkpoint.optimizer_state[name].shape != vector.shape for name, vector in self._state.items()
        ):
            raise InvalidCheckpoint("the optimizer's vectors do not fit the network")
        per_epoch = self._batches.updates_per_epoch
        if not 0 <= position.epoch * per_epoch <= position.update < (position.epoch + 1) * per_epoch + 1:
            raise InvalidCheckpoint(f"update {position.update} does not lie in epoch {position.epoch + 1}")
        for name, vector in self._state.items():
            vector.copy_(checkpoint.optimizer_state[name])
        self.epoch, self.update = position.epoch, position.update
        self._loss_sum, self._rows_seen = position.epoch_loss_sum, position.epoch_rows
        self._monitor.first_loss = position.first_loss
        self._precision = position.precision
        self._scale = (
            LossScale(position.loss_scale, position.quiet_updates) if position.precision == "float16" else None
        )


def _batches(data: DeviceData, settings: TrainingSettings) -> Batches:
    if data.prepared.task is Task.LANGUAGE_MODELLING:
        return TextBatches(data.train_x, settings.batch_size, settings.context_length, data.device)
    return RowBatches(data.train_x, data.train_y, settings.batch_size, data.device)


def _precision(network: Network, values: JsonObject, data: DeviceData, settings: TrainingSettings) -> Precision:
    if data.device.type != "cuda":
        return "float32"
    flops = cost(network, values, data.shape).update_flops(min(settings.batch_size, len(data.train_x)))
    return choose_precision(data.device, flops)


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()
