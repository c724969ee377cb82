"""Values as one reads them in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.text import Text

from foretune.json_types import JsonValue

_BARS = "▁▂▃▄▅▆▇█"
_STATE_STYLES = {
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "QUEUED": "dim",
    "PAUSED": "yellow",
    "STOPPED": "blue",
    "FAILED": "red",
    "INFEASIBLE": "magenta",
    "CANCELED": "yellow",
}


def number(value: float | None) -> str:
    """Four significant digits; `–` for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}"


def setting(value: JsonValue) -> str:
    """One hyperparameter's value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return "{" + settings(value) + "}"
    return str(value)


def settings(values: Mapping[str, JsonValue]) -> str:
    """Hyperparameters on one line: `lr=0.01 width=128`."""
    return " ".join(f"{name}={setting(value)}" for name, value in values.items())


def duration(seconds: float | None) -> str:
    """`3.2s`, `4m 05s`, `2h 07m`, `3d 04h`; `–` for none."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago: `4m 05s ago`."""
    if moment is None:
        return "–"
    return f"{duration(max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds()))} ago"


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=_STATE_STYLES.get(name, ""))


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The course of `values` in at most `width` characters; gaps where a value is missing.

    Longer courses are shortened: each character stands for the mean of its share.
    """
    if width < 1 or not values:
        return ""
    cells = _shares(values, min(width, len(values)))
    known = [cell for cell in cells if cell is not None]
    if not known:
        return " " * len(cells)
    low, high = min(known), max(known)
    span = high - low
    top = len(_BARS) - 1

    def bar(cell: float | None) -> str:
        if cell is None:
            return " "
        if not (span > 0 and math.isfinite(span)):
            return _BARS[top // 2]
        return _BARS[min(top, int((cell - low) / span * top + 0.5))]

    return "".join(map(bar, cells))


def _shares(values: Sequence[float | None], count: int) -> list[float | None]:
    cells: list[float | None] = []
    for position in range(count):
        start, end = position * len(values) // count, (position + 1) * len(values) // count
        share = [value for value in values[start:end] if value is not None and math.isfinite(value)]
        # Divided before they are added: a sum of huge losses must not overflow.
        cells.append(sum(value / len(share) for value in share) if share else None)
    return cells
