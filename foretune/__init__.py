"""Foretune: hyperparameters from every job you ever ran.

>>> from foretune import Client, Float, Int, Categorical, Schedule
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foretune.client import Client, Decision, Experiment, RetryPolicy, Trial
    from foretune.errors import BudgetExhausted, ForetuneError, LeaseLost, TrialInfeasible
    from foretune.events import Event, EventType
    from foretune.metrics import Goal
    from foretune.parameters import Bool, Categorical, Float, Int, Schedule
    from foretune.spaces import Space
    from foretune.wire.experiments import Budget, Metric

__all__ = [
    "Bool",
    "Budget",
    "BudgetExhausted",
    "Categorical",
    "Client",
    "Decision",
    "Event",
    "EventType",
    "Experiment",
    "Float",
    "ForetuneError",
    "Goal",
    "Int",
    "LeaseLost",
    "Metric",
    "RetryPolicy",
    "Schedule",
    "Space",
    "Trial",
    "TrialInfeasible",
]

# Loaded when first asked for: the service and the workers share this package and need no HTTP client.
_HOMES = {
    **dict.fromkeys(("Client", "Decision", "Experiment", "RetryPolicy", "Trial"), "foretune.client"),
    **dict.fromkeys(("BudgetExhausted", "ForetuneError", "LeaseLost", "TrialInfeasible"), "foretune.errors"),
    **dict.fromkeys(("Event", "EventType"), "foretune.events"),
    "Goal": "foretune.metrics",
    **dict.fromkeys(("Bool", "Categorical", "Float", "Int", "Schedule"), "foretune.parameters"),
    "Space": "foretune.spaces",
    **dict.fromkeys(("Budget", "Metric"), "foretune.wire.experiments"),
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
