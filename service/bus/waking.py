"""One subscription a process, however many clients stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from service.bus.names import NO_EVENTS, event_channel

_RETRY_S = 0.5


class EventWaker:
    """Wakes coroutines that wait for news of an experiment. A wake-up may be missed: callers poll as well.

    It hears of those experiments alone that somebody waits for: of all others there may be a thousand events a second.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(redis_url, socket_connect_timeout=2.0, health_check_interval=15)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        # redis-py swallows a cancellation that comes while it sends: `_follow` must see the end by itself.
        self._stopped = True
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for waiting in list(self._waiting.values()):
            for event in waiting:
                event.set()
        await self._redis.aclose()

    def listen_for(self, experiment_id: str) -> WakeUp:
        """Begins to listen; use as a context manager, and call `wait` in it."""
        return WakeUp(self._waiting, event_channel(experiment_id), self._changed)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    # Without any channel it would not listen at all.
                    await pubsub.subscribe(NO_EVENTS)
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._follow(pubsub))
                        tasks.create_task(self._hear(pubsub))
            except* (redis.RedisError, OSError):
                await asyncio.sleep(_RETRY_S)

    async def _follow(self, pubsub: PubSub) -> None:
        """Keeps the subscriptions equal to what is waited for."""
        subscribed: set[str] = set()
        while not self._stopped:
            self._changed.clear()
            wanted = set(self._waiting)
            if new := wanted - subscribed:
                await pubsub.subscribe(*new)
            if old := subscribed - wanted:
                await pubsub.unsubscribe(*old)
            subscribed = wanted
            await self._changed.wait()

    async def _hear(self, pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            # The confirmation of a subscription wakes too: something may have been published before it.
            for event in self._waiting.get(message["channel"].decode(), ()):
                event.set()
        raise redis.ConnectionError("the subscription ended")


class WakeUp:
    """Set since it was entered, or since the last `wait`, if anything was published."""

    def __init__(self, waiting: dict[str, set[asyncio.Event]], channel: str, changed: asyncio.Event) -> None:
        self._waiting, self._channel, self._changed = waiting, channel, changed
        self._event = asyncio.Event()

    def __enter__(self) -> WakeUp:
        self._waiting[self._channel].add(self._event)
        self._changed.set()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting[self._channel].discard(self._event)
        if not self._waiting[self._channel]:
            del self._waiting[self._channel]
            self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Waits for a wake-up. False when none came within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
