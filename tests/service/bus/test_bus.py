"""Calls, wake-ups and doorbells over a real Redis-protocol server: there, away, and hanging."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import redis
from kombu.exceptions import OperationalError

from foretune.errors import NotFound
from foretune.json_types import JsonObject
from service.bus import Bus, EventWaker, tasks
from service.bus.names import QUEUE_TRAIN
from service.bus.one_way import OneWay
from service.bus.tasks import broker_url
from service.embedded.servers import Servers

BOUND_S = 20.0
"""Between what a call may take on a busy machine and the minute that a hang would."""


@contextmanager
def frozen(servers: Servers) -> Iterator[None]:
    """The server accepts connections and answers nothing."""
    pid = servers.pid("redis")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def stopped(servers: Servers) -> Iterator[None]:
    servers.stop("redis")
    try:
        yield
    finally:
        servers.start("redis")


@contextmanager
def within(seconds: float = BOUND_S) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds, "it hung"


@pytest.fixture(params=[frozen, stopped])
def away(request: pytest.FixtureRequest, servers: Servers) -> Iterator[None]:
    with request.param(servers):
        yield


def serve_one(bus: Bus, asked: list[tuple[str, JsonObject]]) -> threading.Thread:
    """A desk that answers one call with what it was asked."""

    def serve() -> None:
        # As the desk does: a connection that Redis closed meanwhile is opened again.
        for _ in range(3):
            with suppress(redis.RedisError):
                for call in bus.take(10.0, 1):
                    asked.append((call.kind, call.payload))
                    refusal = NotFound("no such thing") if call.kind == "fail" else None
                    bus.answer(call, refusal or {"kind": call.kind, **call.payload})
                return

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


class TestCalls:
    def test_a_desk_answers(self, bus: Bus, runner: asyncio.Runner) -> None:
        asked: list[tuple[str, JsonObject]] = []
        desk = serve_one(bus, asked)
        answer = runner.run(bus.call("propose", {"experiment": "exp_1", "count": 2}, 10.0))
        desk.join()
        assert answer == {"kind": "propose", "experiment": "exp_1", "count": 2}
        assert asked == [("propose", {"experiment": "exp_1", "count": 2})]

    def test_a_refusal_is_no_answer(self, bus: Bus, runner: asyncio.Runner) -> None:
        desk = serve_one(bus, [])
        assert runner.run(bus.call("fail", {}, 10.0)) is None
        desk.join()

    def test_without_a_desk_there_is_none(self, bus: Bus, runner: asyncio.Runner) -> None:
        assert runner.run(bus.call("propose", {}, 0.05)) is None
        assert bus.calls_waiting() == 1

    def test_a_call_that_came_too_late_is_not_answered(
        self, bus: Bus, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a desk that was away for a while, it spends nothing on those who have gone."""
        runner.run(bus.call("propose", {}, 0.01))
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 60)
        asked: list[tuple[str, JsonObject]] = []
        serve_one(bus, asked).join()
        assert asked == []
        assert bus.calls_waiting() == 0

    def test_callers_may_wait_for_longer_than_a_connection_is_silent(self, bus: Bus, runner: asyncio.Runner) -> None:
        """Given an answer that takes seven seconds, whoever waits ten gets it."""
        late = threading.Timer(7.0, lambda: serve_one(bus, []).join())
        late.start()
        answer = runner.run(bus.call("propose", {"n": 1}, 30.0))
        late.join()
        assert answer == {"kind": "propose", "n": 1}

    def test_nobody_hangs_with_redis(self, bus: Bus, runner: asyncio.Runner, away: None) -> None:
        with within():
            assert runner.run(bus.call("propose", {}, 0.2)) is None

    def test_it_works_again_when_redis_is_back(self, bus: Bus, runner: asyncio.Runner, servers: Servers) -> None:
        bus.ping()
        with stopped(servers):
            assert runner.run(bus.call("propose", {}, 0.2)) is None
        deadline = time.monotonic() + BOUND_S
        answer = None
        while answer is None and time.monotonic() < deadline:
            desk = serve_one(bus, [])
            answer = runner.run(bus.call("propose", {"n": 1}, 2.0))
            desk.join()
        assert answer == {"kind": "propose", "n": 1}

    def test_a_desk_takes_what_waits_together_the_oldest_first(self, bus: Bus) -> None:
        for number in range(5):
            bus.notify("note", {"number": number})
        while bus.calls_waiting() < 5:
            time.sleep(0.01)
        assert [call.payload["number"] for call in bus.take(10.0, 3)] == [0, 1, 2]
        assert [call.payload["number"] for call in bus.take(10.0, 3)] == [3, 4]
        assert bus.take(0.01, 3) == []

    def test_a_connection_closed_meanwhile_is_noticed_before_it_is_used(self, servers: Servers, bus: Bus) -> None:
        with redis.Redis.from_url(servers.redis_url) as client:
            one_way = OneWay(client)
            one_way.send(("RPUSH", "list", b"1"))
            client.client_kill_filter(_type="normal", skipme=True)
            one_way.send(("RPUSH", "list", b"2"))
            one_way.send(("RPUSH", "list", b"3"))
            while client.llen("list") < 3:
                time.sleep(0.01)
            assert client.lrange("list", 0, -1) == [b"1", b"2", b"3"]
            one_way.close()

    def test_notes_reach_the_desk(self, bus: Bus) -> None:
        bus.notify("stopping", {"experiment": "exp_1"})
        asked: list[tuple[str, JsonObject]] = []
        serve_one(bus, asked).join()
        assert asked == [("stopping", {"experiment": "exp_1"})]


class TestWaking:
    def test_whoever_waits_is_woken_and_nobody_else(self, bus: Bus, runner: asyncio.Runner) -> None:
        async def wait() -> tuple[bool, bool]:
            waker = EventWaker(bus.redis_url)
            await waker.start()
            with waker.listen_for("exp_1") as mine, waker.listen_for("exp_2") as other:
                # A subscription's confirmation wakes too.
                await mine.wait(BOUND_S)
                await other.wait(BOUND_S)
                bus.publish("exp_1")
                woken = await mine.wait(BOUND_S), await other.wait(0.1)
            await waker.stop()
            return woken

        assert runner.run(wait()) == (True, False)

    def test_it_listens_again_after_redis_was_away(self, bus: Bus, runner: asyncio.Runner, servers: Servers) -> None:
        async def wait() -> bool:
            waker = EventWaker(bus.redis_url)
            await waker.start()
            with waker.listen_for("exp_1") as wake:
                await wake.wait(BOUND_S)
                servers.stop("redis")
                await asyncio.sleep(0.2)
                servers.start("redis")
                woken = False
                for _ in range(100):
                    await asyncio.sleep(0.1)
                    while await wake.wait(0.0):
                        pass
                    try:
                        bus.publish("exp_1")
                    except redis.RedisError:
                        continue
                    if woken := await wake.wait(0.2):
                        break
            await waker.stop()
            return woken

        assert runner.run(wait())

    def test_publishing_hangs_nobody(self, bus: Bus, away: None) -> None:
        with within():
            for _ in range(50):
                try:
                    bus.publish("exp_1")
                except (redis.RedisError, OSError):
                    continue

    def test_after_the_last_listener_left_the_next_one_hears(self, bus: Bus, runner: asyncio.Runner) -> None:
        async def wait() -> bool:
            waker = EventWaker(bus.redis_url)
            await waker.start()
            for pause_s in (0.0, 0.01, 0.1):
                with waker.listen_for("exp_1") as wake:
                    await wake.wait(0.1)
                await asyncio.sleep(pause_s)
            with waker.listen_for("exp_1") as wake:
                # Until the subscription stands, which wakes too unless it stood before.
                await wake.wait(0.5)
                bus.publish("exp_1")
                woken = await wake.wait(BOUND_S)
            await waker.stop()
            return woken

        assert runner.run(wait())


class TestDoorbells:
    def test_a_ring_lies_in_the_queue_of_its_task(self, bus: Bus) -> None:
        tasks.send("train.shift", "exp_1")
        assert bus.queue_lengths((QUEUE_TRAIN,)) == {QUEUE_TRAIN: 1}

    def test_who_cannot_ask_sees_nobody_wait(self, bus: Bus, away: None) -> None:
        with within():
            assert bus.waiting_to_train() == 0

    def test_ringing_hangs_nobody(self, bus: Bus, away: None) -> None:
        with within():
            for _ in range(10):
                with pytest.raises(OperationalError):
                    tasks.send("train.shift", "exp_1")

    @pytest.mark.parametrize(
        ("redis_url", "broker"),
        [
            ("redis://localhost:6379/3", "redis://localhost:6379/3"),
            ("rediss://:secret@host/0", "rediss://:secret@host/0"),
            ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
            ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ],
    )
    def test_celery_gets_the_same_server(self, redis_url: str, broker: str) -> None:
        assert broker_url(redis_url) == broker
