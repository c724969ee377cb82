"""Calls, notes and wake-ups through a real server, also while it is away."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis

from foretune.errors import NotFound
from foretune.json_types import JsonObject
from service.bus import Bus, EventWaker
from service.bus.one_way import OneWay
from service.embedded.servers import Servers


def _echo(kind: str, payload: JsonObject) -> JsonObject | None:
    if kind == "refused":
        raise NotFound("no such thing")
    return {"kind": kind, **payload}


@pytest.fixture
def desk(servers: Servers, bus: Bus) -> Bus:
    """The bus of another process."""
    return Bus(servers.redis_url)


class TestCalls:
    def test_a_call_gets_its_own_answer(self, bus: Bus, desk: Bus, runner: asyncio.Runner) -> None:
        # Given a desk that answers two calls, the second first
        async def both() -> list[JsonObject | None]:
            calls = asyncio.gather(bus.call("a", {"x": 1}, 10.0), bus.call("b", {"x": 2}, 10.0))
            await asyncio.to_thread(lambda: [desk.serve(_echo, 10.0) for _ in range(2)])
            return list(await calls)

        # Then each caller hears what it asked for
        assert runner.run(both()) == [{"kind": "a", "x": 1}, {"kind": "b", "x": 2}]

    def test_an_error_and_a_silence_are_no_answers(self, bus: Bus, desk: Bus, runner: asyncio.Runner) -> None:
        async def refused() -> JsonObject | None:
            call = asyncio.ensure_future(bus.call("refused", {}, 10.0))
            await asyncio.to_thread(desk.serve, _echo, 10.0)
            return await call

        assert runner.run(refused()) is None
        assert runner.run(bus.call("nobody-answers", {}, 0.05)) is None

    def test_a_call_from_a_thread(self, bus: Bus, desk: Bus) -> None:
        server = threading.Thread(target=desk.serve, args=(_echo, 10.0))
        server.start()
        assert bus.call_sync("a", {}, 10.0) == {"kind": "a"}
        server.join()

    def test_what_nobody_waits_for_is_done_all_the_same(self, bus: Bus, desk: Bus) -> None:
        bus.notify("stopping", {"experiment": "exp_1"})
        heard: list[tuple[str, JsonObject]] = []
        assert desk.serve(lambda kind, payload: heard.append((kind, payload)), 10.0)
        assert heard == [("stopping", {"experiment": "exp_1"})]
        assert not desk.serve(_echo, 0.01)


class TestWakeUps:
    def test_news_of_the_experiment_waited_for(self, bus: Bus, servers: Servers, runner: asyncio.Runner) -> None:
        async def woken() -> tuple[bool, bool]:
            waker = EventWaker(servers.redis_url)
            await waker.start()
            with waker.listen_for("exp_1") as one, waker.listen_for("exp_2") as other:
                # The subscription itself wakes once.
                assert await one.wait(10.0)
                assert await other.wait(10.0)
                bus.publish("exp_1")
                heard = await one.wait(10.0), await other.wait(0.2)
            await waker.stop()
            return heard

        assert runner.run(woken()) == (True, False)

    def test_after_the_last_listener_left_the_next_one_hears(
        self, bus: Bus, servers: Servers, runner: asyncio.Runner
    ) -> None:
        async def woken() -> bool:
            waker = EventWaker(servers.redis_url)
            await waker.start()
            for pause_s in (0.0, 0.01, 0.1):
                with waker.listen_for("exp_1") as wake:
                    await wake.wait(0.1)
                await asyncio.sleep(pause_s)
            with waker.listen_for("exp_1") as wake:
                # Until the subscription stands, which wakes too unless it stood before.
                await wake.wait(0.5)
                bus.publish("exp_1")
                heard = await wake.wait(10.0)
            await waker.stop()
            return heard

        assert runner.run(woken())

    def test_stopping_wakes_whoever_waits(self, servers: Servers, runner: asyncio.Runner) -> None:
        async def woken() -> bool:
            waker = EventWaker(servers.redis_url)
            await waker.start()
            with waker.listen_for("exp_1") as wake:
                await wake.wait(10.0)
                waiting = asyncio.ensure_future(wake.wait(10.0))
                await asyncio.sleep(0)
                await waker.stop()
                return await waiting

        assert runner.run(woken())


class TestWithoutRedis:
    def test_a_call_is_given_up_at_once_and_works_again_later(
        self, bus: Bus, servers: Servers, runner: asyncio.Runner
    ) -> None:
        # Given a connection that was in use
        assert runner.run(bus.call("a", {}, 0.01)) is None
        servers.stop("redis")
        try:
            # When the server is away, then there is no answer, long before the time is over
            assert runner.run(asyncio.wait_for(bus.call("a", {}, 60.0), 30.0)) is None
            with pytest.raises(redis.RedisError):
                bus.notify("stopping", {})
        finally:
            servers.start("redis")
        # Then it is found again without anyone's help
        with redis.Redis.from_url(servers.redis_url) as connection:
            connection.flushall()
        heard: list[str] = []
        while not heard:
            try:
                bus.notify("again", {})
            except redis.RedisError:
                continue
            Bus(servers.redis_url).serve(lambda kind, _: heard.append(kind), 1.0)
        assert heard == ["again"]

    def test_a_closed_connection_is_noticed_before_it_is_used(self, servers: Servers) -> None:
        with redis.Redis.from_url(servers.redis_url) as client:
            client.flushall()
            one_way = OneWay(client)
            one_way.send("RPUSH", "list", b"1")
            client.client_kill_filter(_type="normal", skipme=True)
            one_way.send("RPUSH", "list", b"2")
            one_way.send("RPUSH", "list", b"3")
            while client.llen("list") < 3:
                pass
            assert client.lrange("list", 0, -1) == [b"1", b"2", b"3"]
            one_way.close()
