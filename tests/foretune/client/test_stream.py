"""The event stream over connections that end early: no gap, no repeat, a stated patience."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune.client import Client, RetryPolicy
from foretune.errors import ConnectionFailed, NotFound, UnexpectedAnswer
from foretune.events import EventType

EVENTS = "/v1/experiments/exp_1/events"
EXPERIMENT = "/v1/experiments/exp_1"


def entry(sequence: int, kind: str = "trial.measurement", **data: object) -> bytes:
    return f"id: {sequence}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


END = entry(6, "experiment.state", state="COMPLETED", reason="all trials are done")
LOG = [entry(n, number=n) for n in range(1, 6)] + [END]


def experiment(state: str, last_event: int) -> dict[str, object]:
    return {
        "id": "exp_1", "name": "n", "state": state, "mode": "managed", "created_at": "2026-01-01T00:00:00Z",
        "metric": {"name": "val_loss", "goal": "minimize"}, "space": [], "fixed": {}, "budget": {},
        "stopping": "auto", "proposer": "auto", "priors": "auto", "parallelism": 1, "seed": 0, "share_history": True,
        "labels": {}, "features": {}, "last_event": last_event,
        "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0},
    }  # fmt: skip


def sequences(client: Client, after: int = 0) -> list[int]:
    return [event.sequence for event in client.stream("exp_1", after)]


def test_events_arrive_in_order_until_the_experiment_is_finished(service, client) -> None:
    service.on("GET", EVENTS, service.sse(b": hello\n\n", *LOG))
    events = list(client.stream("exp_1"))
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[0].data == {"number": 1}
    assert events[-1].type is EventType.EXPERIMENT_STATE


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, sum(map(len, LOG))), st.booleans(), st.integers(0, 2)), max_size=4))
def test_connections_that_end_anywhere_lose_and_repeat_nothing(service, client, endings) -> None:
    """`endings`: after how many bytes a connection ends, whether it is cut, how many old events it repeats."""
    # given a log served honestly from the last event named, over connections that end early
    todo = list(endings)

    def serve(request):
        start = int(request.headers.get("last-event-id", 0))
        if not todo:
            return service.sse(*LOG[start:])
        length, cut, repeated = todo.pop()
        log = b"".join(LOG[max(0, start - repeated) :])
        return service.sse(log[: max(1, length)], cut=cut)

    service.on("GET", EVENTS, serve)
    service.on("GET", EXPERIMENT, service.answer(experiment("RUNNING", 5)))
    # when / then
    assert sequences(client) == [1, 2, 3, 4, 5, 6]


def test_a_restart_of_the_service_is_bridged_and_heard_of(service, client) -> None:
    # given a stream that breaks after three events, and a service that is then away for a moment
    service.on(
        "GET", EVENTS, service.sse(*LOG[:3], cut=True), service.problem(503, "unavailable"), service.sse(*LOG[3:])
    )
    heard: list[str] = []
    # when
    got = [event.sequence for event in client.stream("exp_1", on_interruption=lambda error: heard.append(error.code))]
    # then
    assert got == [1, 2, 3, 4, 5, 6]
    assert heard == ["connection_failed", "unavailable"]
    assert [request.headers.get("last-event-id") for request in service.sent("GET", EVENTS)] == [None, "3", "3"]


def test_going_on_after_the_end_ends(service, client) -> None:
    service.on("GET", EVENTS, service.sse(b": nothing left\n\n"))
    service.on("GET", EXPERIMENT, service.answer(experiment("COMPLETED", 6)))
    assert sequences(client, after=6) == []


def test_a_stream_closed_in_good_order_is_opened_again(service, client) -> None:
    # given a stream that reached its longest life while the experiment runs
    service.on("GET", EVENTS, service.sse(*LOG[:2]), service.sse(*LOG[2:]))
    service.on("GET", EXPERIMENT, service.answer(experiment("RUNNING", 2)))
    assert sequences(client) == [1, 2, 3, 4, 5, 6]


def test_a_gap_is_fetched_again_and_if_it_stays_it_is_said(service, client) -> None:
    # given one connection that skips an event
    service.on("GET", EVENTS, service.sse(LOG[0], *LOG[2:]), service.sse(*LOG[1:]))
    service.on("GET", EXPERIMENT, service.answer(experiment("COMPLETED", 6)))
    assert sequences(client) == [1, 2, 3, 4, 5, 6]
    # given a log that lacks the event
    service.on("GET", EVENTS, service.sse(LOG[0], *LOG[2:]), service.sse(*LOG[2:]))
    with pytest.raises(UnexpectedAnswer, match="2 … 2 of exp_1 are missing"):
        sequences(client)


def test_events_of_a_newer_service_are_passed_over(service, client) -> None:
    service.on("GET", EVENTS, service.sse(LOG[0], entry(2, "trial.teleported"), *LOG[2:]))
    assert sequences(client) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize("piece", [b"id: x\ndata: {}\n\n", b"id: 1\ndata: nonsense\n\n", b"id: 1\ndata: []\n\n"])
def test_what_is_no_event_is_said(service, client, piece: bytes) -> None:
    service.on("GET", EVENTS, service.sse(piece))
    with pytest.raises(UnexpectedAnswer):
        sequences(client)


def test_an_unknown_experiment_is_not_waited_for(service, client) -> None:
    service.on("GET", EVENTS, service.problem(404, "not_found", "there is no experiment"))
    with pytest.raises(NotFound, match="there is no experiment"):
        sequences(client)
    assert len(service.received) == 1


def test_patience_ends_with_the_place_to_go_on(service) -> None:
    service.on("GET", EVENTS, service.sse(*LOG[:2], cut=True), service.drop())
    retry = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.02)
    with Client(service.url, "k", retry=retry) as client, pytest.raises(ConnectionFailed, match="after=2"):
        for _ in client.stream("exp_1", give_up_after_s=0.1):
            pass


def test_leaving_the_loop_closes_the_connection(service, client) -> None:
    service.on("GET", EVENTS, service.sse(*LOG[:3], cut=True))
    stream = client.stream("exp_1")
    assert next(stream).sequence == 1
    stream.close()
    service.on("GET", "/healthz", service.answer({"status": "ok", "version": "1"}))
    assert client.health().status == "ok"
