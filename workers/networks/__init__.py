"""The base networks that workers train, one file each, and the way to add more.

A network is described by a `Network`: `networks()` lists them, `get_network` finds one by its name, and an installed
package adds its own through the entry-point group `foretune.networks` (see `workers.networks.registry`).
"""

from workers.networks.dropout import Dropout
from workers.networks.network import Build, DataShape, Network
from workers.networks.registry import ENTRY_POINT_GROUP, BrokenNetwork, broken_networks, get_network, networks
from workers.networks.training import TRAINING_DEFAULTS, TRAINING_LIMITS, OptimizerName, training_parameters

__all__ = [
    "ENTRY_POINT_GROUP",
    "TRAINING_DEFAULTS",
    "TRAINING_LIMITS",
    "BrokenNetwork",
    "Build",
    "DataShape",
    "Dropout",
    "Network",
    "OptimizerName",
    "broken_networks",
    "get_network",
    "networks",
    "training_parameters",
]
