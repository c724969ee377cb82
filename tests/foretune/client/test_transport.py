"""Calls over connections that break, services that are busy, and answers that are no answers."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from foretune.client import Client, RetryPolicy
from foretune.client.transport import encode_json, segment
from foretune.errors import (
    BudgetExhausted,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidDataset,
    InvalidRequest,
    LeaseLost,
    NotFound,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
)

HEALTH = {"status": "ok", "version": "0.1.0"}


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_service_that_is_away_for_a_moment_is_asked_again(service, client, status: int) -> None:
    # given a service that fails twice, once with a proxy's HTML page
    away = service.answer(status=status, raw=b"<html>bad gateway</html>")
    service.on("GET", "/healthz", away, service.problem(status, "unavailable"), service.answer(HEALTH))
    # when / then
    assert client.health().version == "0.1.0"
    assert len(service.received) == 3


def test_a_dropped_connection_and_half_an_answer_are_tried_again_with_the_same_idempotency_key(service, client) -> None:
    # given
    service.on(
        "POST",
        "/v1/metalearner/fit",
        service.drop(),
        service.answer({"fit": "started"}, cut=5),
        service.answer({"fit": "started"}),
    )
    # when
    answer = client.fit_metalearner()
    # then all attempts were one request
    assert answer == {"fit": "started"}
    keys = [request.headers["idempotency-key"] for request in service.received]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    # and another call is another request
    client.fit_metalearner()
    assert service.received[-1].headers["idempotency-key"] != keys[0]


def test_retry_after_is_honoured_and_said_when_patience_ends(service, client) -> None:
    # given a service that asks for an hour, longer than this client waits
    service.on("GET", "/healthz", service.problem(429, "too_many_requests", "slow down", {"retry-after": "3600"}))
    # when / then it gives up at once, telling how long to wait
    with pytest.raises(TooManyRequests, match="slow down") as caught:
        client.health()
    assert caught.value.retry_after_s == 3600.0
    assert len(service.received) == 1
    # given a short wait
    service.on(
        "GET", "/healthz", service.problem(429, "too_many_requests", "", {"retry-after": "0"}), service.answer(HEALTH)
    )
    assert client.health().status == "ok"


def test_a_call_outlives_a_restart_of_the_service(service, client) -> None:
    # given a client that has spoken with the service, which then goes away
    service.on("GET", "/healthz", service.answer(HEALTH))
    client.health()
    service.stop()
    comes_back = threading.Timer(0.3, service.start)
    comes_back.start()
    # when / then the call waits for it
    assert client.health().status == "ok"
    comes_back.join()


def test_nobody_there_says_where_it_looked_and_what_to_do() -> None:
    # given a port on which nobody listens
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    # when / then
    lonely = Client(url, "k", retry=RetryPolicy(give_up_unseen_s=0.05))
    with lonely, pytest.raises(ConnectionFailed, match=r"cannot reach http://127.*`foretune up`.*FORETUNE_URL"):
        lonely.health()


def test_a_service_that_never_answers_is_a_connection_failure(service) -> None:
    # given a listener that accepts and stays silent
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = Client(url, "k", timeout_s=0.1, retry=RetryPolicy(give_up_after_s=0.0))
        with waiting, pytest.raises(ConnectionFailed, match="did not answer in time"):
            waiting.health()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "not_found", NotFound),
        (409, "budget_exhausted", BudgetExhausted),
        (409, "lease_lost", LeaseLost),
        (409, "dataset_in_use", Conflict),
        (413, "too_large", TooLarge),
        (422, "invalid_dataset", InvalidDataset),
        (422, "something_new", InvalidRequest),
        (500, "internal", UnexpectedAnswer),
        (507, "storage_full", StorageFull),
    ],
)
def test_each_problem_becomes_its_error(service, client, status: int, code: str, kind: type[Exception]) -> None:
    service.on("GET", "/healthz", service.problem(status, code, "the very reason"))
    with pytest.raises(kind, match="the very reason") as caught:
        client.health()
    assert type(caught.value) is kind
    assert status == 500 or caught.value.code == code


def test_a_full_disk_is_said_at_once(service, client) -> None:
    service.on("GET", "/healthz", service.problem(503, "storage_full", "no space"))
    with pytest.raises(StorageFull, match="no space"):
        client.health()
    assert len(service.received) == 1


def test_field_errors_arrive_with_their_paths(service, client) -> None:
    body = {"type": "t", "title": "t", "status": 422, "detail": "d", "code": "invalid_space",
            "errors": [{"loc": ["body", "space", 0, "low"], "msg": "must be less than high"}]}  # fmt: skip
    service.on("GET", "/healthz", service.answer(body, 422))
    with pytest.raises(InvalidRequest) as caught:
        client.health()
    assert [(fault.loc, fault.msg) for fault in caught.value.errors] == [
        (("body", "space", 0, "low"), "must be less than high")
    ]


@pytest.mark.parametrize("raw", [b"<html>hello</html>", b"", b"[]", b'{"status": 3}', b"\xff\xfe"])
def test_something_else_on_that_port_is_recognised(service, client, raw: bytes) -> None:
    service.on("GET", "/healthz", service.answer(raw=raw))
    with pytest.raises(UnexpectedAnswer, match=r"Is .* from Foretune"):
        client.health()


def test_a_delete_whose_answer_was_lost_is_done(service, client) -> None:
    # given a deletion that works, but whose answer gets lost
    service.on("DELETE", "/v1/datasets/dst_1", service.drop(), service.problem(404, "not_found"))
    # when / then the repetition does not complain that it is gone
    client.datasets.delete("dst_1")
    assert len(service.received) == 2
    # but a first attempt does
    with pytest.raises(NotFound):
        client.datasets.delete("dst_1")


def test_connections_are_kept_alive_over_calls(service, client) -> None:
    # given
    service.on("GET", "/healthz", service.answer(HEALTH))
    opened: list[object] = []
    note = service.opened
    service.opened = lambda connection: (opened.append(connection), note(connection))
    # when
    for _ in range(5):
        client.health()
    # then
    assert len(opened) == 1


def test_a_forked_child_has_connections_of_its_own(service, client) -> None:
    # given a client with an open connection
    service.on("GET", "/healthz", service.answer(HEALTH))
    client.health()
    # when a child of this process calls through the same client object
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if client.health().status == "ok" else 1)
        finally:
            os._exit(2)
    # then both are served, and the parent's connection is unharmed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.health().status == "ok"


def test_a_closed_client_says_so(client) -> None:
    client.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        client.health()


def test_what_json_cannot_say_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        encode_json({"low": float("nan")})
    with pytest.raises(InvalidRequest, match="JSON"):
        encode_json({"space": object()})


@pytest.mark.parametrize("text", ["", ".", ".."])
def test_names_that_would_change_the_path_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="neither an id nor a name"):
        segment(text)


def test_names_are_quoted_into_one_segment() -> None:
    assert segment("a/b c?d") == "a%2Fb%20c%3Fd"


def test_waits_grow_to_a_limit() -> None:
    policy = RetryPolicy(first_wait_s=0.1, longest_wait_s=5.0)
    waits = [policy.wait_s(attempt) for attempt in (1, 2, 3, 50, 5000)]
    bounds = [0.1, 0.2, 0.4, 5.0, 5.0]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


def test_unavailable_keeps_its_code_when_patience_ends(service) -> None:
    service.on("GET", "/healthz", service.problem(503, "broker_away", "Redis does not answer"))
    impatient = Client(service.url, "k", retry=RetryPolicy(give_up_after_s=0.0))
    with impatient, pytest.raises(Unavailable, match="Redis") as caught:
        impatient.health()
    assert caught.value.code == "broker_away"


def test_connections_over_tls_are_checked_and_kept(secure_service, monkeypatch) -> None:
    service, certificate = secure_service
    service.on("GET", "/healthz", service.answer(HEALTH))
    # given nobody vouches for the service
    stranger = Client(service.url, "k", retry=RetryPolicy(give_up_unseen_s=0.0))
    with stranger, pytest.raises(ConnectionFailed, match="certificate verify failed"):
        stranger.health()
    # given its certificate is trusted
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(service.url, "k") as friend:
        assert friend.health().status == "ok"
        assert friend.health().status == "ok"
        service.on("GET", "/v1/trials/tri_1/checkpoint", service.answer(raw=b"weights"))
        assert friend.trials.checkpoint("tri_1", certificate.parent / "trial").read_bytes() == b"weights"


def test_an_idle_connection_that_the_service_closed_is_no_failure(service) -> None:
    # given a client that would not wait at all, and a connection that was closed meanwhile
    service.on("GET", "/healthz", service.answer(HEALTH))
    with Client(service.url, "k", retry=RetryPolicy(give_up_after_s=0.0)) as impatient:
        impatient.health()
        service.stop()
        service.start()
        # when / then
        assert impatient.health().status == "ok"


def test_a_proxy_of_the_environment_is_used_for_services_elsewhere(service, monkeypatch) -> None:
    # given a proxy, played by the scripted service
    monkeypatch.setenv("http_proxy", service.url)
    service.on("GET", "http://tune.example.org/healthz", service.answer(HEALTH))
    with Client("http://tune.example.org", "k") as far:
        assert far.health().status == "ok"
    # then the call went through it, and calls to this machine do not
    assert service.received[0].path == "http://tune.example.org/healthz"
    service.on("GET", "/healthz", service.answer(HEALTH))
    with Client(service.url, "k") as near:
        near.health()
    assert service.received[-1].path == "/healthz"
