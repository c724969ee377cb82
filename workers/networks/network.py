"""What a base network is to the rest of Foretune: a name, what it reads, how it is built and what may be tuned.

Names of parameters are canonical (`learning_rate`, `width`); a client's own space may call them otherwise (`lr`,
`hidden_size`, or any name with a `role`), and `Network.resolve` translates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from torch import nn

from foretune.errors import InvalidSpace
from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import AnyParameter, Configuration, Space
from foretune.tunables import Tunables
from foretune.wire.datasets import Task
from workers.datasets.dataset import Modality
from workers.networks.training import TRAINING_DEFAULTS, TRAINING_LIMITS


@dataclass(frozen=True)
class DataShape:
    """What a network must know of the data.

    `input_shape` is that of one row: (F,) for a table, (C, H, W) for images, (T, F) for sequences, () for a text,
    of which a network sees (B, T) token ids. `output_size` is the number of classes, 1 for regression, the size of
    the vocabulary for language modelling.
    """

    task: Task
    input_shape: tuple[int, ...]
    output_size: int


Build: TypeAlias = Callable[[Mapping[str, JsonValue], DataShape], nn.Module]


@dataclass(frozen=True, eq=False)
class Network:
    """One base network.

    `build` gets every parameter by its canonical name (see `resolve`) and returns a float32 module on the CPU,
    initialised from torch's global generator, which the engine seeds. The module maps a batch of rows to
    (B, output_size), or to (B, T, output_size) for language modelling; what it draws at random in training it draws
    through `workers.networks.dropout.Dropout` or from torch's global generator.

    `space` is what is searched unless the client says otherwise, `defaults` the expert's first choice for every
    parameter of the network, and `limits` what each may be at all; the parameters of training
    (`TRAINING_DEFAULTS`, `TRAINING_LIMITS`) are added to both. A parameter without a limit must stay in the range
    that `space` gives it. `views` says which modalities it reads, the preferred one first.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    views: tuple[Modality, ...]
    space: Space
    build: Build
    defaults: Mapping[str, JsonValue]
    limits: Mapping[str, AnyParameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {**TRAINING_LIMITS, **self.space.by_name, **self.limits}
        # Training's own limits hold unless the network states others: a search range is no limit.
        limits = {name: self.limits.get(name, TRAINING_LIMITS.get(name, limit)) for name, limit in known.items()}
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "defaults", {**TRAINING_DEFAULTS, **self.defaults})
        missing = sorted(set(limits) - set(self.defaults))
        if missing:
            raise InvalidSpace(f"network {self.name!r} gives no default for {', '.join(missing)}")
        self.check_fixed(dict(self.defaults))

    def view_for(self, available: Sequence[Modality]) -> Modality | None:
        """The view of a data set that this network reads best, None when it reads none of those available."""
        return next((view for view in self.views if view in available), None)

    def space_for(self, task: Task) -> Space:
        """The default search space without what means nothing for `task`."""
        if task is Task.CLASSIFICATION or "label_smoothing" not in self.space.by_name:
            return self.space
        return self.space.without(["label_smoothing"], {})

    def default_configuration(self, space: Space) -> Configuration:
        """The expert's first choice as a point of `space`; see `Tunables.default_configuration`."""
        return self.tunables.default_configuration(space)

    def canonical(self, name: str, role: str | None = None) -> str | None:
        """The hyperparameter that a client means by `name` or `role`; None when there is none."""
        return self.tunables.canonical(name, role)

    def resolve(self, configuration: Mapping[str, JsonValue], space: Space | None = None) -> JsonObject:
        """Every hyperparameter by its canonical name; see `Tunables.resolve`. Raises InvalidConfiguration."""
        return self.tunables.resolve(configuration, space)

    def check_fixed(self, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidConfiguration unless every fixed value is one that this network can be trained with."""
        self.tunables.check_fixed(fixed)

    def check_space(self, space: Space, fixed: Mapping[str, JsonValue]) -> None:
        """Raises InvalidSpace or InvalidConfiguration unless this network can be trained all over `space`."""
        self.tunables.check_fixed(fixed)
        self.tunables.check_space(space, fixed)

    @cached_property
    def tunables(self) -> Tunables:
        """What may be set, as the service knows it too."""
        return Tunables(self.name, self.limits, self.defaults)
