"""At which precision a trial trains: a rule of shapes and of what the device can do.

Not a measurement at run time: the precision changes a trial's bits, and must not depend on the mood of the machine.
"""

from __future__ import annotations

from torch import nn

from foretune.json_types import JsonObject
from workers.engine.cost import cost
from workers.engine.device import Precision, choose_precision, multiplies_bfloat16
from workers.engine.device_data import DeviceData
from workers.engine.settings import TrainingSettings
from workers.engine.stacked_cnn import CNNShape
from workers.engine.stacked_mlp import MLPShape
from workers.networks import Network
from workers.networks.cnn import CNN
from workers.networks.mlp import MLP
from workers.networks.reading import read_config

_LARGE_CONVOLUTION = 6_000_000
"""Multiplications of a 1x1 convolution in the first stage of a network (batch, height and width of the image, channels
twice) from which on bfloat16 gains on a CPU, by the plain loop: 1.2 to 2.1 times as fast from 6,000,000 on, .95 at
2,000,000.
"""


def precision_of(network: Network, values: JsonObject, data: DeviceData, module: nn.Module, bucket: int) -> Precision:
    """Mixed where it helps: on CUDA for large updates, on a CPU with the instructions for some large networks.

    `module` is the network at these hyperparameters, `bucket` the rows of its padded batches.
    """
    if data.device.type == "cuda":
        rows = min(read_config(TrainingSettings, values).batch_size, len(data.train_x))
        return choose_precision(data.device, cost(network, values, data.shape).update_flops(rows))
    gains = data.device.type == "cpu" and _gains_on_cpu(module, data, bucket) and multiplies_bfloat16()
    return "bfloat16" if gains else "float32"


def _gains_on_cpu(module: nn.Module, data: DeviceData, bucket: int) -> bool:
    # By the very type: a subclass may compute something else.
    if type(module) is MLP:
        return MLPShape.of(module, data).gains_by_half(bucket)
    if type(module) is CNN:
        shape = CNNShape.of(module, data)
        return bucket * shape.pixels * shape.width**2 >= _LARGE_CONVOLUTION
    return False
