"""One subscription a process, however many clients stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import redis
import redis.asyncio

from service.bus.names import EVENT_CHANNELS, event_channel

_RETRY_S = 0.5


class EventWaker:
    """Wakes coroutines that wait for news of an experiment. A wake-up may be missed: callers poll as well."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(redis_url, socket_connect_timeout=2.0, health_check_interval=15)
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
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
        return WakeUp(self._waiting, event_channel(experiment_id))

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.psubscribe(EVENT_CHANNELS)
                    async for message in pubsub.listen():
                        channel = message["channel"].decode()
                        for event in self._waiting.get(channel, ()):
                            event.set()
            except (redis.RedisError, OSError):
                await asyncio.sleep(_RETRY_S)


class WakeUp:
    """Set since it was entered, or since the last `wait`, if anything was published."""

    def __init__(self, waiting: dict[str, set[asyncio.Event]], channel: str) -> None:
        self._waiting, self._channel, self._event = waiting, channel, asyncio.Event()

    def __enter__(self) -> WakeUp:
        self._waiting[self._channel].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting[self._channel].discard(self._event)
        if not self._waiting[self._channel]:
            del self._waiting[self._channel]

    async def wait(self, timeout_s: float) -> bool:
        """Waits for a wake-up. False when none came within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
