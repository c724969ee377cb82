"""Every error that Foretune raises on purpose.

    ForetuneError
    ├── InvalidRequest                 what was sent is malformed (never retried)
    │   ├── InvalidSpace               a search space that cannot be searched
    │   ├── InvalidConfiguration       hyperparameters outside their space
    │   ├── InvalidSchedule            a learning-rate schedule outside its family
    │   ├── InvalidExperiment          parts of a submission that do not fit together
    │   ├── InvalidDataset             a file that is not a data set
    │   └── InvalidHistory             a history that cannot be learned from
    ├── Unauthenticated                no key, or not a valid one
    ├── Forbidden                      a valid key that may not do this
    ├── NotFound                       no such thing in this project
    ├── Conflict                       a business rule says no; `code` says which
    │   ├── BudgetExhausted
    │   ├── LeaseLost
    │   ├── IdempotencyConflict
    │   └── IllegalTransition
    ├── TooLarge                       over a stated limit
    ├── TooManyRequests                slow down; `retry_after_s` says by how much
    ├── Unavailable                    a server part is away; trying again helps
    │   └── StorageFull
    ├── TrialInfeasible                this setting cannot be trained (diverged, does not fit)
    └── ClientError                    what the Python client raises by itself
        ├── ConnectionFailed
        └── UnexpectedAnswer

An error has a stable `code` and knows no HTTP: `service/api/problems.py` alone gives it a status.
The class docstring is the default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One wrong field: `loc` is the path to it, `msg` what is wrong and what would be right."""

    loc: tuple[str | int, ...]
    msg: str


class ForetuneError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidRequest(ForetuneError):
    """The request is malformed."""

    code = "invalid_request"

    def __init__(
        self, message: str | None = None, *, code: str | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.errors: tuple[FieldError, ...] = tuple(errors)


class InvalidSpace(InvalidRequest, ValueError):
    """The search space cannot be searched."""

    code = "invalid_space"


class InvalidConfiguration(InvalidRequest):
    """The hyperparameters lie outside their space."""

    code = "invalid_configuration"


class InvalidSchedule(InvalidRequest):
    """The learning-rate schedule lies outside its family."""

    code = "invalid_schedule"


class InvalidExperiment(InvalidRequest):
    """The parts of the experiment do not fit together."""

    code = "invalid_experiment"


class InvalidDataset(InvalidRequest):
    """The file is not a data set."""

    code = "invalid_dataset"


class InvalidHistory(InvalidRequest):
    """The history cannot be learned from."""

    code = "invalid_history"


class Unauthenticated(ForetuneError):
    """A valid key is needed: send `Authorization: Bearer KEY`."""

    code = "unauthenticated"


class Forbidden(ForetuneError):
    """This key may not do that."""

    code = "forbidden"


class NotFound(ForetuneError):
    """There is no such thing in this project."""

    code = "not_found"


class Conflict(ForetuneError):
    """The request contradicts the present state."""

    code = "conflict"


class BudgetExhausted(Conflict):
    """All trials of the budget are out; raise `budget.max_trials` to get more."""

    code = "budget_exhausted"


class LeaseLost(Conflict):
    """The lease on this trial is no longer yours; nothing was written."""

    code = "lease_lost"


class IdempotencyConflict(Conflict):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_conflict"


class IllegalTransition(Conflict):
    """The state does not allow that move."""

    code = "illegal_transition"


class TooLarge(ForetuneError):
    """The request is larger than allowed."""

    code = "too_large"


class TooManyRequests(ForetuneError):
    """Too many requests."""

    code = "too_many_requests"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ForetuneError):
    """A part of the service is away; try again."""

    code = "unavailable"

    def __init__(self, message: str | None = None, *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StorageFull(Unavailable):
    """The disk that holds the artifacts is full; nothing was lost. Free some space and try again."""

    code = "storage_full"


class TrialInfeasible(ForetuneError):
    """The trial cannot be trained with these hyperparameters."""

    code = "infeasible"

    def __init__(self, message: str | None = None, *, epoch: int | None = None) -> None:
        super().__init__(message)
        self.epoch = epoch


class ClientError(ForetuneError):
    """The client could not finish the call."""

    code = "client_error"


class ConnectionFailed(ClientError):
    """The service could not be reached."""

    code = "connection_failed"


class UnexpectedAnswer(ClientError):
    """The service answered with something that this client does not understand."""

    code = "unexpected_answer"


def all_error_classes() -> tuple[type[ForetuneError], ...]:
    """Every class of the tree above, parents first; not those that other modules derive for themselves."""
    found: list[type[ForetuneError]] = [ForetuneError]
    for parent in found:
        found.extend(child for child in parent.__subclasses__() if child.__module__ == __name__)
    return tuple(found)
