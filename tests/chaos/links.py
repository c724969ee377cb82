"""A network between a worker and a server that can be cut: a relay of Unix-socket connections.

FLOWS    bytes pass
SILENT   connections stay open and no byte passes, as when packets are dropped
CUT      connections are reset and new ones are refused at once
"""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from pathlib import Path


class LinkState(StrEnum):
    FLOWS = "flows"
    SILENT = "silent"
    CUT = "cut"


class Link:
    """Relays what connects to the socket `entrance` to the socket `server`, until it is closed."""

    def __init__(self, entrance: Path, server: Path) -> None:
        self._server = server
        self._state = LinkState.FLOWS
        self._changed = threading.Condition()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(entrance))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name=f"link {entrance.name}", daemon=True).start()

    def set(self, state: LinkState) -> None:
        """What happens to bytes from now on. After silence, the connections are gone: nobody remembers them."""
        with self._changed:
            was, self._state = self._state, state
            doomed = list(self._pairs) if state is LinkState.CUT or was is LinkState.SILENT else []
            self._changed.notify_all()
        for pair in doomed:
            self._reset(pair)

    def close(self) -> None:
        self.set(LinkState.CUT)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._state is LinkState.CUT:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._server))
            except OSError:
                near.close()
                far.close()
                continue
            pair = (near, far)
            with self._changed:
                self._pairs.add(pair)
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(pair, source, target), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._changed:
                    self._changed.wait_for(lambda: self._state is not LinkState.SILENT or pair not in self._pairs)
                    if pair not in self._pairs:
                        return
                target.sendall(data)
        except OSError:
            pass
        finally:
            self._reset(pair)

    def _reset(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._changed:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
            self._changed.notify_all()
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
