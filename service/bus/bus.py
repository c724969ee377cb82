"""Calls to a desk worker and wake-ups for whoever streams."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson
import redis
import redis.asyncio

from foretune.errors import ForetuneError
from foretune.ids import new_id
from foretune.json_types import JsonObject
from service.bus.names import CALLS, QUEUE_TRAIN, event_channel, reply_key
from service.bus.one_way import OneWay

_REPLY_KEPT_S = 60
_CALLS_KEPT = 10_000
_CONNECT_S = 2.0
_GRACE_S = 1.0
"""How much longer than it was asked to a call waits for a Redis that does not even say that time is up."""


@dataclass(frozen=True)
class Call:
    """What a desk worker is asked."""

    id: str
    kind: str
    payload: JsonObject


class Bus:
    """One process's connection to Redis. Raises redis.RedisError when it is away, except where it says otherwise."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_connect_timeout=_CONNECT_S, health_check_interval=30)
        self._one_way = OneWay(self._redis)
        # How long to wait is each call's own affair: redis-py would give up after five seconds.
        self._redis_async = redis.asyncio.Redis.from_url(
            redis_url, socket_connect_timeout=_CONNECT_S, socket_timeout=None
        )
        self.redis_url = redis_url

    def ping(self) -> None:
        self._redis.ping()

    def publish(self, channel_id: str) -> None:
        """Wakes whoever waits for news of this experiment or dataset."""
        self._one_way.send("PUBLISH", event_channel(channel_id), b"")

    async def call(self, kind: str, payload: JsonObject, timeout_s: float) -> JsonObject | None:
        """Asks a desk worker and waits; None when no answer comes in time or Redis is away."""
        call_id, message = _message(kind, payload, timeout_s)
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                if self._one_way.ready:
                    self._one_way.send("RPUSH", CALLS, message)
                else:
                    await asyncio.to_thread(self._one_way.send, "RPUSH", CALLS, message)
                reply = await self._redis_async.blpop([reply_key(call_id)], timeout=max(timeout_s, 0.01))
        except (redis.RedisError, OSError):  # A TimeoutError is an OSError.
            return None
        return _answer(reply)

    def notify(self, kind: str, payload: JsonObject) -> None:
        """A call that nobody waits for."""
        _, message = _message(kind, payload, 30.0)
        self._one_way.send("RPUSH", CALLS, message)

    def calls_waiting(self) -> int:
        return int(self._redis.llen(CALLS))

    def take(self, wait_s: float, most: int) -> list[Call]:
        """Up to `most` calls, the oldest first, as soon as there is one; none when none comes within `wait_s`."""
        taken = self._redis.blmpop(wait_s, 1, CALLS, direction="LEFT", count=most)
        if taken is None:
            return []
        now = time.time()
        calls = [call for text in taken[1] if (call := _read(text, now)) is not None]  # type: ignore[arg-type]
        if not calls:
            # Nobody took any for a while: what is left lies even longer, or arrives faster than it is answered.
            self._redis.ltrim(CALLS, -_CALLS_KEPT, -1)
        return calls

    def answer(self, call: Call, reply: JsonObject | ForetuneError) -> None:
        """Answers whoever made this call; an error is an answer too."""
        if isinstance(reply, ForetuneError):
            reply = {"error": reply.message, "code": reply.code}
        key = reply_key(call.id)
        self._one_way.send("RPUSH", key, orjson.dumps(reply))
        self._one_way.send("EXPIRE", key, _REPLY_KEPT_S)

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

    async def close(self) -> None:
        self._one_way.close()
        self._redis.close()
        await self._redis_async.aclose()


def _message(kind: str, payload: JsonObject, timeout_s: float) -> tuple[str, bytes]:
    call_id = new_id("ask")
    # Clocks of different machines differ a little; a call answered late is merely ignored.
    deadline = time.time() + timeout_s + 5.0
    return call_id, orjson.dumps({"id": call_id, "kind": kind, "payload": payload, "deadline": deadline})


def _read(text: bytes, now: float) -> Call | None:
    """A call that somebody still waits for; None for one that came too late, or for what is no call at all."""
    try:
        message = orjson.loads(text)
        call = Call(str(message["id"]), str(message["kind"]), dict(message["payload"]))
        return call if message["deadline"] >= now else None
    except (ValueError, TypeError, KeyError):
        return None


def _answer(reply: object) -> JsonObject | None:
    if not isinstance(reply, list | tuple):
        return None
    answer: JsonObject = orjson.loads(reply[1])
    return None if "error" in answer else answer
