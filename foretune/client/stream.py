"""The event log of an experiment as an iterator that outlives connections: no gap, no repeat, a stated patience."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import httpx

from foretune.client.sse import Message, Parser
from foretune.client.transport import Transport, segment
from foretune.errors import ConnectionFailed, ForetuneError, TooManyRequests, Unavailable, UnexpectedAnswer
from foretune.events import Event, EventType
from foretune.states import ExperimentState
from foretune.wire.experiments import Experiment

DEFAULT_PATIENCE_S = 300.0
_READ_TIMEOUT_S = 45.0
"""Three of the comments that the service sends every 15 s went missing: the connection is dead."""


def events(
    transport: Transport,
    experiment_id: str,
    *,
    after: int = 0,
    give_up_after_s: float = DEFAULT_PATIENCE_S,
    on_interruption: Callable[[ForetuneError], None] | None = None,
) -> Iterator[Event]:
    """Every event after number `after`, each exactly once and in order, until the one that finishes the experiment.

    A lost connection is opened again from the last event; `on_interruption` hears why each time. Raises
    ConnectionFailed after `give_up_after_s` without any contact, and the service's own errors at once.
    """
    last, attempt, gap_at = after, 0, -1
    silent_since: float | None = None
    while True:
        try:
            with closing(_connection(transport, experiment_id, last)) as items:
                for item in items:
                    attempt, silent_since = 0, None
                    if item is None or item[0] <= last:
                        continue
                    sequence, event = item
                    if sequence > last + 1:
                        if gap_at == last:
                            gap = f"{last + 1} … {sequence - 1}"
                            raise UnexpectedAnswer(f"the events {gap} of {experiment_id} are missing")
                        gap_at = last
                        break
                    last = sequence
                    if event is not None:
                        yield event
                        if finishes(event):
                            return
            # The service closed the stream in good order: the experiment's end lies at or before `after`, or the
            # stream had reached its longest life.
            if _is_over(transport, experiment_id, last):
                return
            cause: ForetuneError = ConnectionFailed("the service closed the event stream")
        except (ConnectionFailed, Unavailable, TooManyRequests) as interruption:
            cause = interruption
            if on_interruption is not None:
                on_interruption(cause)
        attempt += 1
        now = time.monotonic()
        silent_since = now if silent_since is None else silent_since
        wait_s = transport.retry.wait_s(attempt)
        if now - silent_since + wait_s > transport.patience_s(give_up_after_s):
            raise ConnectionFailed(
                f"the event stream of {experiment_id} was lost: {cause.message} "
                f"Nothing is lost on the service; go on from there with after={last}."
            ) from cause
        time.sleep(wait_s)


def finishes(event: Event) -> bool:
    """Whether this is the event after which nothing follows."""
    if event.type is not EventType.EXPERIMENT_STATE:
        return False
    try:
        return ExperimentState(str(event.data.get("state"))).finished
    except ValueError:
        return False


def _connection(
    transport: Transport, experiment_id: str, after: int
) -> Generator[tuple[int, Event | None] | None, None, None]:
    """The events of one connection; None for other signs of life. An event of a type unknown to us has no value."""
    path = f"/v1/experiments/{segment(experiment_id)}/events"
    headers = {"accept": "text/event-stream", "cache-control": "no-store"}
    if after:
        headers["last-event-id"] = str(after)
    try:
        with transport.stream(path, params=None, headers=headers, read_timeout_s=_READ_TIMEOUT_S) as response:
            parser = Parser()
            for chunk in response.iter_bytes():
                yield None
                for message in parser.feed(chunk):
                    yield _event(message)
    except httpx.TransportError as error:
        raise transport.unreachable(error) from error


def _event(message: Message) -> tuple[int, Event | None]:
    try:
        sequence, data = int(message.last_id), json.loads(message.data)
    except ValueError:
        raise UnexpectedAnswer(f"the event stream holds no event of Foretune: {message!r}") from None
    if not isinstance(data, dict):
        raise UnexpectedAnswer(f"the data of event {sequence} is no object: {message.data[:100]!r}")
    known = message.event in EventType.__members__.values()
    return sequence, Event(sequence, EventType(message.event), data) if known else None


def _is_over(transport: Transport, experiment_id: str, last: int) -> bool:
    reply = transport.call("GET", f"/v1/experiments/{segment(experiment_id)}")
    experiment = reply.as_model(Experiment)
    return experiment.state.finished and experiment.last_event <= last
