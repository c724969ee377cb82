"""One trial in training: its weights, optimizer, position and random streams. How it is stepped is another matter.

A slot's numbers live in rows (`weights`, `gradient`, and one or two of the optimizer) that are its own or belong to a
population's matrices; `move` takes them from one to the other, and the module always looks at where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from foretune.errors import InvalidConfiguration
from foretune.json_types import JsonObject
from workers.engine import optimizers, streams
from workers.engine.batches import Batches, RowBatches, TextBatches
from workers.engine.checkpoint import Checkpoint, InvalidCheckpoint, Position
from workers.engine.device import Precision
from workers.engine.device_data import DeviceData
from workers.engine.divergence import DivergenceMonitor
from workers.engine.evaluation import trivial_loss
from workers.engine.flat import FlatParameters
from workers.engine.layout import StoredShapes
from workers.engine.loss_scale import LossScale
from workers.engine.precision import precision_of
from workers.engine.settings import TrainingSettings
from workers.engine.trial import TrialSpec
from workers.networks import Network, splitmix
from workers.networks.dropout import active_dropouts, layer_keys
from workers.networks.reading import read_config

_KEYS_AT_ONCE = 256
"""Noise is keyed for so many updates together; numpy's calls cost more than its arithmetic."""


class Diverged(Exception):
    """A loss of this trial is NaN, infinite or absurd."""


class Slot:
    """Holds one trial. Raises InvalidConfiguration or InvalidCheckpoint when it cannot."""

    def __init__(
        self,
        network: Network,
        data: DeviceData,
        spec: TrialSpec,
        checkpoint: Checkpoint | None,
        precision: Precision | None,
    ) -> None:
        self.spec, self.data = spec, data
        self._network, self._device = network, data.device
        self.values: JsonObject = network.resolve(spec.configuration)
        self.settings = read_config(TrainingSettings, self.values)
        self._streams = streams.streams(spec.seed)
        self.batches = _batches(data, self.settings)
        self.updates = spec.max_epochs * self.batches.updates_per_epoch
        if checkpoint is not None:
            self._check_origin(checkpoint)
        self.module = self._build(checkpoint)
        self.precision = precision or precision_of(network, self.values, data, self.module, self.batches.bucket)
        self.dropouts = active_dropouts(self.module)
        self.flat = FlatParameters(self.module)
        self.state = optimizers.initial_state(self.settings.optimizer, self.flat.weights)
        self.apply = self._updater()
        self.monitor = DivergenceMonitor(trivial_loss(data.prepared))
        self.scale = LossScale() if self.precision == "float16" else None
        self.epoch = self.update = 0
        self.seconds = 0.0
        self._read, self._loss_sum, self._rows_seen = 0, 0.0, 0
        self._bound = -math.inf
        self._ordered_epoch, self._keys_from = -1, 0
        self._keys = torch.empty(0, dtype=torch.int32)
        if checkpoint is not None:
            self._restore(checkpoint)

    @property
    def done(self) -> bool:
        """Whether all its epochs are trained."""
        return self.epoch >= self.spec.max_epochs

    @property
    def position(self) -> int:
        """The number of the next update within its epoch, from 0."""
        return self.update - self.epoch * self.batches.updates_per_epoch

    @property
    def left(self) -> int:
        """How many updates its epoch still has."""
        return (self.epoch + 1) * self.batches.updates_per_epoch - self.update

    def learning_rates(self, updates: int) -> list[float]:
        """Those of the next updates."""
        return [self.learning_rate(self.update + ahead) for ahead in range(updates)]

    def learning_rate(self, update: int) -> float:
        """That of one update, from 0."""
        return self.spec.schedule.learning_rate(update, self.updates)

    @property
    def noise(self) -> int:
        """The 64-bit seed of the next update's noise."""
        return splitmix.at(self._streams.noise, self.update)

    def noise_keys(self) -> Tensor:  # (updates_per_epoch, layers, 2) int32, on the CPU
        """The keys of its dropout layers for every update of the epoch."""
        per_epoch = self.batches.updates_per_epoch
        first = self.epoch * per_epoch
        ahead = first - self._keys_from
        if not 0 <= ahead <= len(self._keys) - per_epoch:
            noise = np.array(self._streams.noise, dtype=np.uint64)
            seeds = splitmix.run(noise, first, max(per_epoch, _KEYS_AT_ONCE))
            self._keys, self._keys_from, ahead = layer_keys(seeds, len(self.dropouts)), first, 0
        return self._keys[ahead : ahead + per_epoch]

    def begin_epoch(self) -> None:
        """Draws the data order of a new epoch, if it stands in one."""
        if self._ordered_epoch != self.epoch:
            self.batches.start_epoch(splitmix.at(self._streams.order, self.epoch))
            self._ordered_epoch = self.epoch

    def take(self, losses: Sequence[float]) -> None:
        """Notes the losses of the next updates that were made, all of this epoch. Raises Diverged at a bad one."""
        begun = self.epoch * self.batches.updates_per_epoch
        for loss in losses:
            if not loss <= self._bound:  # NaN is not
                problem = self.monitor.problem_with(loss)
                if problem is not None:
                    raise Diverged(f"diverged at epoch {self.epoch + 1}, update {self._read + 1}: loss {problem}")
                self._bound = self.monitor.bound
            rows = self.batches.counts[self._read - begun]
            self._read += 1
            self._loss_sum += loss * rows
            self._rows_seen += rows

    def close_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Ends the epoch with these validation metrics; what it reports. Raises Diverged when they are bad."""
        problem = self.monitor.problem_with(metrics["val_loss"])
        if problem is None and not all(math.isfinite(value) for value in metrics.values()):
            problem = "leads to metrics that are not finite"
        if problem is not None:
            raise Diverged(f"diverged at epoch {self.epoch + 1}, update {self.update}: validation loss {problem}")
        last_rate = self.learning_rate(self.update - 1)
        reported = {**metrics, "train_loss": self._loss_sum / self._rows_seen, "learning_rate": last_rate}
        self._loss_sum, self._rows_seen, self.seconds = 0.0, 0, 0.0
        self.epoch += 1
        return reported

    def store_as(self, stored: StoredShapes) -> None:
        """Gives it rows of its own, in which parameters have these padded shapes; see `Layout`."""
        packed = {name: self.flat.layout.pack(vector) for name, vector in self.state.items()}
        self.flat = FlatParameters(self.module, stored)
        self.state = optimizers.initial_state(self.settings.optimizer, self.flat.weights)
        for name, vector in self.state.items():
            self.flat.layout.unpack(packed[name], vector)
        self.apply = self._updater()

    def move(self, weights: Tensor, gradient: Tensor, state: Sequence[Tensor]) -> None:  # each (P,)
        """Moves its numbers to other rows of the same layout; optimizer rows that it does not need become zero."""
        self.flat.move(weights, gradient)
        for row in state[len(self.state) :]:
            row.zero_()
        for name, row in zip(self.state, state, strict=False):
            self.state[name] = row.copy_(self.state[name])
        self.apply = self._updater()

    def move_out(self) -> None:
        """Moves its numbers to rows of its own."""
        own = [torch.zeros_like(self.flat.weights) for _ in range(2 + len(self.state))]
        self.move(own[0], own[1], own[2:])

    def snapshot(self) -> Checkpoint:
        scale = self.scale or LossScale(1.0)
        return Checkpoint(
            network=self._network.name,
            data_key=self.data.prepared.key,
            seed=self.spec.seed,
            configuration=dict(self.values),
            device_kind=self._device.type,
            position=Position(
                epoch=self.epoch,
                update=self.update,
                epoch_loss_sum=self._loss_sum,
                epoch_rows=self._rows_seen,
                first_loss=self.monitor.first_loss,
                precision=self.precision,
                loss_scale=scale.scale,
                quiet_updates=scale.quiet_updates,
            ),
            weights={name: _own(tensor) for name, tensor in self.module.state_dict().items()},
            optimizer_state={name: _own(self.flat.layout.pack(vector)) for name, vector in self.state.items()},
        )

    @property
    def context_length(self) -> int:
        """Tokens of a window; 0 for anything but texts."""
        return self.batches.context_length if isinstance(self.batches, TextBatches) else 0

    def _updater(self) -> optimizers.Update:
        return optimizers.updater(self.flat.weights, self.flat.gradient, self.state, self.settings)

    def _build(self, checkpoint: Checkpoint | None) -> nn.Module:
        with streams.kept_global_state():
            streams.seed_global(self._streams.initialisation, torch.device("cpu"))
            try:
                module = self._network.build(self.values, self.data.shape)
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
            "data": (self.data.prepared.key, checkpoint.data_key),
            "seed": (self.spec.seed, checkpoint.seed),
            "configuration": (self.values, checkpoint.configuration),
        }
        for part, (here, there) in mine.items():
            if here != there:
                raise InvalidCheckpoint(f"the checkpoint belongs to another {part}: {there!r}, not {here!r}")

    def _restore(self, checkpoint: Checkpoint) -> None:
        position = checkpoint.position
        layout = self.flat.layout
        packed_size = len(layout.pack(self.flat.weights))
        if set(checkpoint.optimizer_state) != set(self.state) or any(
            vector.shape != (packed_size,) for vector in checkpoint.optimizer_state.values()
        ):
            raise InvalidCheckpoint("the optimizer's vectors do not fit the network")
        per_epoch = self.batches.updates_per_epoch
        if not 0 <= position.epoch * per_epoch <= position.update < (position.epoch + 1) * per_epoch + 1:
            raise InvalidCheckpoint(f"update {position.update} does not lie in epoch {position.epoch + 1}")
        for name, vector in self.state.items():
            layout.unpack(checkpoint.optimizer_state[name].to(self._device), vector)
        self.epoch, self.update = position.epoch, position.update
        self._read = position.update
        self._loss_sum, self._rows_seen = position.epoch_loss_sum, position.epoch_rows
        self.monitor.first_loss = position.first_loss
        self.precision = position.precision
        self.scale = LossScale(position.loss_scale, position.quiet_updates) if self.precision == "float16" else None


def _batches(data: DeviceData, settings: TrainingSettings) -> Batches:
    if data.is_text:
        return TextBatches(data.train_x, settings.batch_size, settings.context_length, data.device)
    return RowBatches(data.train_x, data.train_y, settings.batch_size, data.device)


def _own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()
