"""From HTTP answers to values and errors: problem+json becomes the class of `foretune.errors` that its code names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from foretune.errors import (
    Conflict,
    FieldError,
    Forbidden,
    ForetuneError,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    TrialInfeasible,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    all_error_classes,
)

Model = TypeVar("Model", bound=BaseModel)

_BY_CODE: Mapping[str, type[ForetuneError]] = {error.code: error for error in reversed(all_error_classes())}
_BY_STATUS: Mapping[int, type[ForetuneError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_KEY_HINT = "pass api_key=…, or set FORETUNE_API_KEY; `foretune up` writes a key to api_key in its data folder"


@dataclass(frozen=True)
class Reply:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def as_model(self, model: type[Model]) -> Model:
        """The body as `model`. Raises UnexpectedAnswer when it is something else."""
        try:
            return model.model_validate_json(self.content)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the body"
            raise UnexpectedAnswer(
                f"the service's answer is no {model.__name__}: {where}: {fault['msg']}. "
                f"Is {_excerpt(self.content)!r} from Foretune, and is this client as new as the service?"
            ) from None

    @property
    def server_time(self) -> datetime | None:
        """The service's clock when it answered, to the second; None when it did not say."""
        return http_date(self.headers.get("date"))


def http_date(text: str | None) -> datetime | None:
    """Reads an HTTP date; None when there is none or it is malformed."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks to wait; None when it is absent or malformed."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        moment = http_date(text)
        return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> ForetuneError:
    """The error that an answer with this status means; never raises."""
    problem = _problem(content)
    code = problem.get("code")
    code = code if isinstance(code, str) else None
    detail = problem.get("detail") or problem.get("title")
    message = detail if isinstance(detail, str) and detail else f"the service answered {status}: {_excerpt(content)}"
    kind = _BY_CODE.get(code or "") or _BY_STATUS.get(status)
    if kind is None or kind is ForetuneError:
        kind = InvalidRequest if 400 <= status < 500 else UnexpectedAnswer
    wait_s = retry_after_s(headers)
    if issubclass(kind, InvalidRequest):
        return kind(message, code=code, errors=_field_errors(problem.get("errors")))
    if issubclass(kind, TooManyRequests):
        return kind(message, retry_after_s=1.0 if wait_s is None else wait_s)
    if issubclass(kind, Unavailable):
        return kind(message, code=code, retry_after_s=1.0 if wait_s is None else wait_s)
    if issubclass(kind, TrialInfeasible):
        return kind(message)
    if issubclass(kind, Unauthenticated):
        return kind(f"{message} ({_KEY_HINT})", code=code)
    if issubclass(kind, UnexpectedAnswer):
        return kind(f"the service failed ({status}): {message}")
    return kind(message, code=code)


def _problem(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _field_errors(value: object) -> list[FieldError]:
    faults: list[FieldError] = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict) and isinstance(item.get("loc"), list):
            loc = tuple(part for part in item["loc"] if isinstance(part, str | int))
            faults.append(FieldError(loc, str(item.get("msg", ""))))
    return faults


def _excerpt(content: bytes) -> str:
    text = content[:200].decode("utf-8", "replace").strip()
    return text + ("…" if len(content) > 200 else "") if text else "an empty body"
