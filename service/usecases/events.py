"""The event log of an experiment, as clients read it."""

from __future__ import annotations

from dataclasses import dataclass

from foretune.events import Event
from service.db import events as event_rows
from service.db.session import Transaction
from service.usecases import experiments


@dataclass(frozen=True)
class EventPage:
    events: list[Event]
    finished: bool
    """Nothing will follow the last of these events."""


def page_after(tx: Transaction, project: str, experiment_id: str, after: int, limit: int) -> EventPage:
    """The events that follow number `after`, at most `limit`. Raises NotFound."""
    stored = experiments.find(tx, project, experiment_id)
    found = event_rows.after(tx, experiment_id, after, limit)
    last = found[-1].sequence if found else after
    return EventPage(found, finished=stored.state.finished and last >= stored.event_seq)
