"""`python -m service.api --host 127.0.0.1 --port 8642`: serves until SIGTERM or SIGINT, then ends in good order."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.parts import Parts
from service.logs import configure_logging
from service.settings import settings

_ENDS_WITHIN_S = 8
_KEPT_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is they who close them and no call meets a closing one."""


class _Server(uvicorn.Server):
    """Ends the streams as soon as it is told to stop: it would wait for them."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        parts: Parts = self._app.state.parts
        parts.end_streams()
        await super().shutdown(sockets)  # type: ignore[arg-type]


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m service.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8642)
    arguments = parser.parse_args()
    configure_logging()
    app = create_app(settings())
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEPT_ALIVE_S,
        timeout_graceful_shutdown=_ENDS_WITHIN_S,
    )
    _Server(app, config).run()


if __name__ == "__main__":
    main()
