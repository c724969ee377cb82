"""What a run costs the machine: processor time of each process group, and transactions of each database."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import psycopg

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SETTLED_FOR_S = 2.0
_IDLE_SHARE = 0.05
_STATISTICS_LAG_S = 11.0
"""Postgres' idle connections tell their statistics at the latest after 10 s."""


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """User and system time of each named process with all it started, those that ended included; Linux only.

    `roots`: name -> pid.
    """
    children: dict[int, list[int]] = defaultdict(list)
    own: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            children[int(after_name[1])].append(int(entry.name))
            # utime and stime, and those of children that ended and were waited for.
            own[int(entry.name)] = sum(map(int, after_name[11:15])) / _TICKS_A_SECOND
    return {name: _tree(pid, children, own) for name, pid in roots.items()}


def _tree(pid: int, children: Mapping[int, list[int]], own: Mapping[int, float]) -> float:
    return own.get(pid, 0.0) + sum(_tree(child, children, own) for child in children.get(pid, ()))


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What was added to each, in seconds."""
    return {name: after[name] - before.get(name, 0.0) for name in after}


def settle(roots: Mapping[str, int]) -> None:
    """Waits until the processes have started up and do next to nothing, a minute at most."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        before = cpu_seconds(roots)
        time.sleep(_SETTLED_FOR_S)
        if sum(difference(cpu_seconds(roots), before).values()) < _IDLE_SHARE * _SETTLED_FOR_S:
            return


class TransactionCount:
    """Counts the transactions of one database between two looks.

    `url` is libpq's address of another database of the same server, so that looking is not counted.
    """

    def __init__(self, url: str, database: str) -> None:
        self._url = url
        self._database = database

    def settled(self) -> tuple[int, float]:
        """All commits so far, also of reads, and when they were counted. Waits until idle connections told theirs."""
        time.sleep(_STATISTICS_LAG_S)
        with psycopg.connect(self._url, autocommit=True) as connection:
            query = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
            row = connection.execute(query, (self._database,)).fetchone()
        assert row is not None
        return int(row[0]), time.monotonic()
