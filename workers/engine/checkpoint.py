"""A trial frozen between two updates, and its bytes: safetensors with a JSON header, never pickle.

Weights (and persistent buffers) keep the names of the module's state dict, so a file can be loaded without
Foretune; the optimizer's vectors are called `optimizer/…`. The random streams are functions of the seed and of the
position, which are in the header; no generator state is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import JsonValue, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as decode_safetensors
from safetensors.torch import save as encode_safetensors
from torch import Tensor

from foretune.errors import InvalidRequest
from workers.engine.device import Precision

FORMAT_VERSION = 2
"""2: dropout draws other noise, so a trial of format 1 cannot go on to the same numbers and starts anew."""
_HEADER_KEY = "foretune_checkpoint"
_OPTIMIZER_PREFIX = "optimizer/"


class InvalidCheckpoint(InvalidRequest):
    """The checkpoint cannot be resumed from."""

    code = "invalid_checkpoint"


@dataclass(frozen=True)
class Position:
    """Where a trial stands.

    `epoch` is the number of epochs done, `update` that of updates done since the start, `epoch_loss_sum` the sum of
    the losses times rows since the last whole epoch, over `epoch_rows` rows. `first_loss` is what divergence is
    measured against; `loss_scale` and `quiet_updates` matter at float16 alone.
    """

    epoch: int
    update: int
    epoch_loss_sum: float = 0.0
    epoch_rows: int = 0
    first_loss: float | None = None
    precision: Precision = "float32"
    loss_scale: float = 1.0
    quiet_updates: int = 0


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that the rest of a trial's curve depends on. All tensors are on the CPU, and its own.

    `network`, `data_key`, `seed` and `configuration` (resolved) say what it belongs to; `device_kind` (`cpu`,
    `cuda`, `mps`) where it was trained: on the same kind the resumed curve is the uninterrupted one, bit for bit, save
    that a CPU without instructions for bfloat16 goes on in float32 with what was begun in bfloat16.
    """

    network: str
    data_key: str
    seed: int
    configuration: dict[str, JsonValue]
    device_kind: str
    position: Position
    weights: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Tensor]

    def to_bytes(self) -> bytes:
        """The canonical file."""
        header = {
            "format": FORMAT_VERSION,
            "network": self.network,
            "data_key": self.data_key,
            "seed": self.seed,
            "configuration": self.configuration,
            "device_kind": self.device_kind,
            "position": asdict(self.position),
        }
        tensors = dict(self.weights)
        tensors |= {_OPTIMIZER_PREFIX + name: tensor for name, tensor in self.optimizer_state.items()}
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
        encoded: bytes = encode_safetensors(tensors, metadata={_HEADER_KEY: text})
        return encoded

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Reads what `to_bytes` wrote. Raises InvalidCheckpoint for anything else, also for damaged files."""
        try:
            tensors: dict[str, Tensor] = decode_safetensors(data)
            header = _HEADER.validate_json(_header_text(data))
        except (SafetensorError, ValidationError, ValueError, KeyError, TypeError) as error:
            raise InvalidCheckpoint(f"not a readable checkpoint: {error}") from error
        if header.format != FORMAT_VERSION:
            raise InvalidCheckpoint(f"written in format {header.format}; this version reads {FORMAT_VERSION}")
        optimizer = {
            name.removeprefix(_OPTIMIZER_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_OPTIMIZER_PREFIX)
        }
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER_PREFIX)}
        return cls(
            network=header.network,
            data_key=header.data_key,
            seed=header.seed,
            configuration=header.configuration,
            device_kind=header.device_kind,
            position=header.position,
            weights=weights,
            optimizer_state=optimizer,
        )


@dataclass(frozen=True)
class _Header:
    format: int
    network: str
    data_key: str
    seed: int
    configuration: dict[str, JsonValue]
    device_kind: str
    position: Position


_HEADER = TypeAdapter(_Header)


def _header_text(data: bytes) -> str:
    """The JSON text that `to_bytes` put in the file's metadata: 8 bytes of length, then the safetensors header."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if _HEADER_KEY not in metadata:
        raise ValueError("a safetensors file, but not of a trial")
    return str(metadata[_HEADER_KEY])
