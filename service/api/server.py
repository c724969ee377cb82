"""The HTTP server around the application."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from service.api.parts import Parts

_ENDS_WITHIN_S = 8
_KEPT_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is they who close them and no call meets a closing one."""


class Server(uvicorn.Server):
    """Serves until it is told to stop, then lets the streams end and the answers that are under way leave."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_keep_alive=_KEPT_ALIVE_S,
                timeout_graceful_shutdown=_ENDS_WITHIN_S,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams first: the server would wait for them."""
        parts: Parts = self._app.state.parts
        parts.end_streams()
        await super().shutdown(sockets)
