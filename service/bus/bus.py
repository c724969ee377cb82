"""Calls to a desk worker and wake-ups for whoever streams."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson
import redis

from foretune.errors import ForetuneError
from foretune.json_types import JsonObject
from service.bus.lists import ListReader
from service.bus.names import CALLS, QUEUE_TRAIN, event_channel
from service.bus.one_way import Command, OneWay
from service.bus.replies import Replies

_REPLY_KEPT_S = 60
_CALLS_KEPT = 10_000
_CONNECT_S = 2.0


@dataclass(frozen=True)
class Call:
    """What a desk worker is asked."""

    kind: str
    payload: JsonObject
    number: int = 0
    reply_to: str = ""
    """The list that the reply goes to; empty when nobody waits for one."""


def ping(redis_url: str, timeout_s: float) -> None:
    """Raises redis.RedisError or OSError unless a server answers in time, ValueError for what is no address."""
    with redis.Redis.from_url(redis_url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s) as connection:
        connection.ping()


class Bus:
    """One process's connection to Redis. Raises redis.RedisError when it is away, except where it says otherwise."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_connect_timeout=_CONNECT_S, health_check_interval=30)
        self._one_way = OneWay(self._redis)
        self._calls = ListReader(self._redis, CALLS)
        self._replies = Replies(self._redis)
        self.redis_url = redis_url

    def ping(self) -> None:
        self._redis.ping()

    def publish(self, channel_id: str) -> None:
        """Wakes whoever waits for news of this experiment or dataset."""
        self._one_way.send(("PUBLISH", event_channel(channel_id), b""))

    async def call(self, kind: str, payload: JsonObject, timeout_s: float) -> JsonObject | None:
        """Asks a desk worker and waits; None when no answer comes in time or Redis is away."""
        number, reply = self._replies.expect()
        command = _command(Call(kind, payload, number, self._replies.key), timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                if self._one_way.ready:
                    self._one_way.send(command)
                else:
                    await asyncio.to_thread(self._one_way.send, command)
                answer = await reply
        except (redis.RedisError, OSError):  # A TimeoutError is an OSError.
            return None
        finally:
            self._replies.forget(number)
        return None if answer is None or "error" in answer else answer

    def notify(self, kind: str, payload: JsonObject) -> None:
        """A call that nobody waits for."""
        self._one_way.send(_command(Call(kind, payload), 30.0))

    def calls_waiting(self) -> int:
        return int(self._redis.llen(CALLS))

    def take(self, wait_s: float, most: int) -> list[Call]:
        """Up to `most` calls, the oldest first, as soon as there is one; none when none comes within `wait_s`."""
        texts = self._calls.take(wait_s, most)
        if not texts:
            return []
        now = time.time()
        calls = [call for text in texts if (call := _read(text, now)) is not None]
        if not calls:
            # Nobody took any for a while: what is left lies even longer, or arrives faster than it is answered.
            self._redis.ltrim(CALLS, -_CALLS_KEPT, -1)
        return calls

    def answer(self, call: Call, reply: JsonObject | ForetuneError) -> None:
        """Answers whoever made this call; an error is an answer too."""
        if not call.reply_to:
            return
        if isinstance(reply, ForetuneError):
            reply = {"error": reply.message, "code": reply.code}
        answer = orjson.dumps({"call": call.number, "reply": reply})
        self._one_way.send(("RPUSH", call.reply_to, answer), ("EXPIRE", call.reply_to, _REPLY_KEPT_S))

    def queue_lengths(self, queues: tuple[str, ...]) -> dict[str, int]:
        """Messages waiting in Celery's queues."""
        pipeline = self._redis.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue)
        return dict(zip(queues, map(int, pipeline.execute()), strict=True))

    def waiting_to_train(self) -> int:
        """How many messages train workers have not taken yet; as good as none while Redis is away."""
        try:
            return self.queue_lengths((QUEUE_TRAIN,))[QUEUE_TRAIN]
        except (redis.RedisError, OSError):
            return 0

    def close(self) -> None:
        """Closes all connections."""
        self._replies.close()
        self._calls.close()
        self._one_way.close()
        self._redis.close()


def _command(call: Call, timeout_s: float) -> Command:
    # Clocks of different machines differ a little; a call answered late is merely ignored.
    deadline = time.time() + timeout_s + 5.0
    return "RPUSH", CALLS, orjson.dumps([call.kind, call.payload, call.number, call.reply_to, deadline])


def _read(text: bytes, now: float) -> Call | None:
    """A call that somebody still waits for; None for one that came too late, or for what is no call at all."""
    try:
        kind, payload, number, reply_to, deadline = orjson.loads(text)
        call = Call(str(kind), dict(payload), int(number), str(reply_to))
        return call if deadline >= now else None
    except (ValueError, TypeError):
        return None
