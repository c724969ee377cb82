"""Servers that are written to."""

from __future__ import annotations

import psycopg

from service.embedded.servers import Servers

# Starts the servers in argv[1] and prints "up", then the number of every row whose commit was acknowledged.
WRITER = """
import sys
from pathlib import Path
import psycopg
from service.embedded.servers import embedded_servers
with embedded_servers(Path(sys.argv[1])) as servers:
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS acknowledged (number int)")
        print("up", flush=True)
        number = 0
        while number < int(sys.argv[2]):
            connection.execute("INSERT INTO acknowledged VALUES (%s)", (number,))
            print(number, flush=True)
            number += 1
"""


def connect(servers: Servers) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True)
