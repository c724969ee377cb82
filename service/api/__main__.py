"""`python -m service.api --host 127.0.0.1 --port 8642`: serves until SIGTERM or SIGINT, then ends in good order."""

from __future__ import annotations

import argparse

from service.api.app import create_app
from service.api.server import Server
from service.logs import configure_logging
from service.settings import settings


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m service.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8642)
    arguments = parser.parse_args()
    configure_logging()
    Server(create_app(settings()), arguments.host, arguments.port).run()


if __name__ == "__main__":
    main()
