"""The values that go in and out of the door: problems, observations, proposals, decisions and recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from foretune.metrics import Goal
from foretune.spaces import Configuration, Space

if TYPE_CHECKING:
    from metalearner.knowledge import Knowledge
    from metalearner.prior_mean import PriorMean


class ProposerName(StrEnum):
    """What an experiment may ask for; AUTO chooses by the space."""

    AUTO = "auto"
    RANDOM = "random"
    QUASIRANDOM = "quasirandom"
    GP = "gp"
    TPE = "tpe"


class Effort(StrEnum):
    """How much time a proposal may take. It changes the proposal, and is therefore recorded in it."""

    FAST = "fast"
    """A few milliseconds: many clients ask at once."""
    THOROUGH = "thorough"
    """Some tens of milliseconds: a trial takes seconds or more."""


class Origin(StrEnum):
    """Where a configuration came from."""

    DEFAULT = "default"
    """The expert default of the network."""
    RANDOM = "random"
    QUASIRANDOM = "quasirandom"
    GP = "gp"
    TPE = "tpe"
    PORTFOLIO = "portfolio"
    """One of the settings that did best on histories."""
    TRANSFER = "transfer"
    """A surrogate whose prior was learned from histories."""
    FALLBACK = "fallback"
    """A quasi-random point where the model had nothing new to offer."""
    BEST_SEEN = "best_seen"
    BEST_PREDICTED = "best_predicted"


@dataclass(frozen=True)
class Evidence:
    """A history that speaks for a setting: its reference, how like the task it is from 0 to 1, and its best value."""

    history: str
    similarity: float
    best: float


@dataclass(frozen=True)
class PortfolioItem:
    """A setting that did well on histories. `predicted_rank`: the share of a history's trials expected to be better."""

    configuration: Configuration
    evidence: tuple[Evidence, ...]
    predicted_rank: float


@dataclass(frozen=True)
class Problem:
    """An experiment as its proposer sees it.

    `defaults` is an expert's configuration; if given, it is the first proposal, or the second where histories of the
    same network (`network_known`) gave a `portfolio`, which otherwise follows it.
    """

    space: Space
    goal: Goal
    max_epochs: int
    max_trials: int
    seed: int
    proposer: ProposerName = ProposerName.AUTO
    defaults: Configuration | None = None
    portfolio: tuple[PortfolioItem, ...] = ()
    network_known: bool = False
    metric: str = ""
    """Its name: values of other metrics are no measure of this one's."""
    knowledge: Knowledge | None = None
    """What histories say of the space; `metalearner.informed` adds it together with the portfolio."""
    prior_mean: PriorMean | None = None
    """What is known of the network's settings without any history."""


class Observation(NamedTuple):
    """One result. `value` is the result, or the best so far of a stopped trial; `curve`, of a finished trial, the best
    value up to each epoch, which tells what stopped ones would have come to.

    A diverged trial has `infeasible` and counts as worst; `finished` is false for a trial that was stopped early.
    """

    configuration: Configuration
    value: float | None
    curve: tuple[float, ...] = ()
    finished: bool = True
    infeasible: bool = False
    epochs: int = 0


@dataclass(frozen=True)
class Prediction:
    """What the metric will be: the median and the ends of the 80 % interval, in the metric's own units, low <= high."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Proposal:
    """A configuration to try. `seed` is for its training; `seen` is how many observations the proposal knew."""

    configuration: Configuration
    origin: Origin
    predicted: Prediction | None
    seed: int
    seen: int
    effort: Effort
    item: PortfolioItem | None = None
    """The item of the portfolio that this is."""
    gate: float | None = None
    """How far histories were trusted, from 0 to 1; None where there are none."""
    evidence: tuple[Evidence, ...] = ()
    """The histories that speak for it."""


class StoppingPolicy(StrEnum):
    """What an experiment may ask for; AUTO is explained in `metalearner.stopping`."""

    AUTO = "auto"
    NONE = "none"
    ASHA = "asha"
    MEDIAN = "median"


class Confidence(StrEnum):
    """How much a recommendation is worth."""

    NONE = "none"
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Recommendation:
    """A configuration to use. `value` is what was measured for it, if it was."""

    configuration: Configuration
    predicted: Prediction | None
    origin: Origin
    value: float | None = None


@dataclass(frozen=True)
class Recommendations:
    """Ranked, the best first."""

    items: tuple[Recommendation, ...]
    confidence: Confidence
