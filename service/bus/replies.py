"""What desk workers answered to one process: all of it comes to one list, and one thread hands it out."""

from __future__ import annotations

import asyncio
import secrets
import threading
from itertools import count

import orjson
import redis
import structlog

from foretune.json_types import JsonObject
from service.bus.lists import ListReader
from service.bus.names import reply_key

_log = structlog.get_logger(__name__)
_WAIT_S = 5.0
_MOST_TOGETHER = 64
_AFTER_FAILURE_S = 0.2


class Replies:
    """Futures for the replies to calls, by the number of the call.

    The thread starts with the first call. When Redis goes away, whatever was waited for may be lost with it: all
    futures end at once, so that their callers give the answer that they have for this case.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.key = reply_key(secrets.token_hex(8))
        """The list that replies are sent to: this process's own."""
        self._reader = ListReader(client, self.key)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[JsonObject | None]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def expect(self) -> tuple[int, asyncio.Future[JsonObject | None]]:
        """A new call's number, and its reply to come; None when it will not come. Call `forget` in any case."""
        number, reply = next(self._numbers), asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting[number] = reply
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="desk-replies", daemon=True)
                self._thread.start()
        return number, reply

    def forget(self, number: int) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._reader.close()
        if self._thread is not None:
            self._thread.join(_WAIT_S)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                texts = self._reader.take(_WAIT_S, _MOST_TOGETHER)
            except Exception as error:  # noqa: BLE001 - the thread serves all calls to come, whatever broke under it
                if not self._closed.is_set():
                    _log.warning("broker_away", error=str(error))
                self._end_all()
                self._closed.wait(_AFTER_FAILURE_S)
                continue
            for text in texts:
                self._hand_out(text)

    def _hand_out(self, text: bytes) -> None:
        try:
            answer = orjson.loads(text)
            number, reply = int(answer["call"]), answer["reply"]
        except (ValueError, TypeError, KeyError):
            _log.warning("reply_not_read")
            return
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is not None:
            _settle(future, reply if isinstance(reply, dict) else None)

    def _end_all(self) -> None:
        with self._lock:
            ended, self._waiting = list(self._waiting.values()), {}
        for future in ended:
            _settle(future, None)


def _settle(future: asyncio.Future[JsonObject | None], reply: JsonObject | None) -> None:
    """From another thread than the future's own."""

    def settle() -> None:
        if not future.done():
            future.set_result(reply)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        return  # Its loop has ended, and with it whoever waited.
