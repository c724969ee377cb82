"""What one API process holds from its start to its end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from service.artifacts import ArtifactStore
from service.bus import Bus, EventWaker
from service.db.ledger_batches import LedgerBatches
from service.db.session import Database
from service.settings import Settings
from service.usecases.health import Readings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Parts:
    """Connections and threads. Make it where an event loop runs; `start` it, and `stop` it at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url, pool_size=settings.foretune_threads)
        self.bus = Bus(settings.redis_url)
        self.waker = EventWaker(settings.redis_url)
        self.artifacts = ArtifactStore(settings.artifacts_url)
        self.readings = Readings(self.database, self.bus)
        self.stopping = False
        """Streams end when this is set."""
        self._ending: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(settings.foretune_threads, "api")
        self.ledgers = LedgerBatches(self.database, self._threads, self.bus.publish)

    async def start(self) -> None:
        # One pool for all blocking work, also for what goes through `asyncio.to_thread`: each thread of it may hold
        # one database connection, and there are as many of these.
        asyncio.get_running_loop().set_default_executor(self._threads)
        await self.waker.start()

    def end_streams(self) -> None:
        """Lets every stream end in good order, so that its client resumes elsewhere. Callable from the event loop."""
        self.stopping = True
        if self._ending is None:
            # It wakes whoever waits.
            self._ending = asyncio.get_running_loop().create_task(self.waker.stop())

    async def stop(self) -> None:
        self.end_streams()
        if self._ending is not None:
            await self._ending
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.readings.close()
        self.bus.close()
        self.database.close()

    async def in_thread(
        self, work: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs what blocks. The endpoint is a coroutine and this is its one hop to a thread: FastAPI's own way takes
        a hop for the endpoint and one for each end of each dependency, which costs more than the rest of a report.
        """
        call = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
