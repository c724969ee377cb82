"""How often a key may call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foretune.client import Client
from foretune.errors import TooManyRequests
from service.api.rate import Rate
from tests.service.api.conftest import Serve, problem_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def allowed(rate: Rate, key: str) -> bool:
    try:
        rate.take(key)
    except TooManyRequests:
        return False
    return True


@given(st.floats(0.1, 50.0), st.lists(st.floats(0.0, 3.0), max_size=200))
def test_in_no_span_of_time_are_there_more_than_the_rate_and_one_burst(per_s: float, gaps: list[float]) -> None:
    clock = Clock()
    rate = Rate(per_s, clock)
    taken: list[float] = []
    for gap in gaps:
        clock.now += gap
        if allowed(rate, "a"):
            taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            span = taken[last] - taken[first]
            assert last - first + 1 <= per_s * span + max(2.0 * per_s, 1.0) + 1e-6


@given(st.floats(0.1, 50.0), st.integers(1, 100))
def test_whoever_waits_as_long_as_told_is_let_in(per_s: float, calls: int) -> None:
    clock = Clock()
    rate = Rate(per_s, clock)
    for _ in range(calls):
        try:
            rate.take("a")
        except TooManyRequests as refused:
            clock.now += refused.retry_after_s + 1e-9
            rate.take("a")


def test_keys_do_not_share_and_zero_allows_any_number() -> None:
    rate = Rate(1.0, Clock())
    assert [allowed(rate, "a") for _ in range(3)] == [True, True, False]
    assert allowed(rate, "b")
    free = Rate(0.0, Clock())
    assert all(allowed(free, "a") for _ in range(10_000))


def test_too_many_get_429_with_the_time_to_wait_and_health_is_free(serve: Serve) -> None:
    api = serve(foretune_calls_per_s=0.5)
    assert api.http.get("/v1/networks").status_code == 200
    refused = api.http.get("/v1/networks")
    assert (refused.status_code, problem_of(refused)["code"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] in ("1", "2")
    assert api.http.get("/healthz").status_code == 200


def test_the_client_waits_and_goes_on(serve: Serve) -> None:
    api = serve(foretune_calls_per_s=1.0)
    key = api.http.headers["authorization"].removeprefix("Bearer ")
    with Client(api.url, key) as client:
        for _ in range(3):
            client.networks.list()
