"""Which networks there are: the built-in ones, and those of installed packages.

A package adds one with an entry point in the group `foretune.networks`, which names a `Network`, or a function
without arguments that returns one:

    [project.entry-points."foretune.networks"]
    my_net = "my_package.my_net:NETWORK"

A package that cannot be loaded is reported (in the log and by `broken_networks`) and does no other harm.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from foretune.errors import NotFound
from workers.networks import cnn, gru, mlp, transformer
from workers.networks.network import Network

ENTRY_POINT_GROUP = "foretune.networks"
_BUILT_IN = (mlp.NETWORK, cnn.NETWORK, gru.NETWORK, transformer.NETWORK)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokenNetwork:
    """An installed network that could not be loaded, and why."""

    entry_point: str
    package: str
    reason: str


@dataclass(frozen=True)
class _Registry:
    networks: Mapping[str, Network]
    broken: tuple[BrokenNetwork, ...]


def networks() -> Mapping[str, Network]:
    """Every network by its name, built-in ones first. Installed packages are looked for once a process."""
    return _registry().networks


def broken_networks() -> tuple[BrokenNetwork, ...]:
    """The installed networks that could not be loaded."""
    return _registry().broken


def get_network(name: str) -> Network:
    """The network called `name`. Raises NotFound, naming those there are."""
    registry = _registry()
    if name in registry.networks:
        return registry.networks[name]
    broken = next((b for b in registry.broken if b.entry_point == name), None)
    if broken is not None:
        raise NotFound(f"network {name!r} of package {broken.package!r} cannot be loaded: {broken.reason}")
    raise NotFound(f"there is no network {name!r}; there are {', '.join(registry.networks)}")


@lru_cache(maxsize=1)
def _registry() -> _Registry:
    found = {network.name: network for network in _BUILT_IN}
    broken: list[BrokenNetwork] = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        package = entry_point.dist.name if entry_point.dist is not None else "unknown"
        try:
            network = _load(entry_point)
            if network.name in found:
                raise ValueError(f"there is already a network {network.name!r}")
        except Exception as error:  # noqa: BLE001 - a stranger's import may raise anything
            reason = f"{type(error).__name__}: {error}"
            broken.append(BrokenNetwork(entry_point.name, package, reason))
            _log.warning("network %r of package %r is left out: %s", entry_point.name, package, reason)
        else:
            found[network.name] = network
    return _Registry(found, tuple(broken))


def _load(entry_point: EntryPoint) -> Network:
    loaded: object = entry_point.load()
    if not isinstance(loaded, Network) and callable(loaded):
        loaded = loaded()
    if not isinstance(loaded, Network):
        raise TypeError(f"{entry_point.value} is no workers.networks.Network but {type(loaded).__name__}")
    return loaded
