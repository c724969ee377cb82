"""The kinds of fault, and the plan of a run: which fault when, for how long, drawn from one seed."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from foretune.errors import ForetuneError
from tests.chaos.arena import LEASE_S, WORKERS, Arena
from tests.chaos.links import LinkState

Heal = Callable[[], None]
Strike = Callable[[Arena, str, random.Random], Heal | None]
"""Does the damage at the named place; how it ends, or None when there was nothing to damage."""


@dataclass(frozen=True)
class Kind:
    name: str
    strike: Strike
    lasts_s: tuple[float, float]
    """Between the strike and its end, at least and at most."""
    places: tuple[str, ...]
    weight: int = 2


@dataclass(frozen=True)
class Planned:
    """One fault of a run."""

    kind: Kind
    place: str
    pause_s: float
    """After the strike before it."""
    lasts_s: float


def plan(seed: int, count: int, longest_pause_s: float, *, small_disk: bool) -> Iterator[Planned]:
    """Every kind once, then each as often as its weight says, in orders of the seed; and so on."""
    generator = random.Random(seed)
    kinds = [kind for kind in KINDS if small_disk or kind.strike is not _fill_disk]
    deck: list[Kind] = []
    for _ in range(count):
        if not deck:
            once = generator.sample(kinds, len(kinds))
            again = [kind for kind in kinds for _ in range(kind.weight - 1)]
            generator.shuffle(again)
            deck = once + again
        kind = deck.pop(0)
        yield Planned(
            kind, generator.choice(kind.places), generator.uniform(0.5, 2.5), generator.uniform(*kind.lasts_s)
        )


def _kill(arena: Arena, name: str, _: random.Random) -> Heal | None:
    if not arena.signal(arena.pid(name), signal.SIGKILL):
        return None
    # The supervisor starts it again by itself; this spares the waits that grow with the number of deaths.
    return lambda: arena.stack.supervisor.resume(name)


def _kill_pool(arena: Arena, worker: str, _: random.Random) -> Heal | None:
    return _nothing if arena.signal(arena.pool_pid(worker), signal.SIGKILL) else None


def _kill_backend(arena: Arena, _: str, __: random.Random) -> Heal | None:
    return _nothing if arena.signal(arena.backend_pid(), signal.SIGKILL) else None


def _hang_pool(arena: Arena, worker: str, _: random.Random) -> Heal | None:
    pid = arena.pool_pid(worker)
    return _woken(arena, pid) if arena.signal(pid, signal.SIGSTOP) else None


def _hang(arena: Arena, name: str, _: random.Random) -> Heal | None:
    pid = arena.pid(name)
    return _woken(arena, pid) if arena.signal(pid, signal.SIGSTOP) else None


def _woken(arena: Arena, pid: int | None) -> Heal:
    def wake() -> None:
        arena.signal(pid, signal.SIGCONT)

    return wake


def _stop(arena: Arena, name: str, _: random.Random) -> Heal | None:
    arena.stack.supervisor.stop(name)
    return lambda: arena.stack.supervisor.resume(name)


def _cut(arena: Arena, place: str, _: random.Random) -> Heal | None:
    return _severed(arena, place, LinkState.CUT)


def _silence(arena: Arena, place: str, _: random.Random) -> Heal | None:
    return _severed(arena, place, LinkState.SILENT)


def _severed(arena: Arena, place: str, state: LinkState) -> Heal:
    worker, _, server = place.partition(" to ")
    link = arena.links[worker, server]
    link.set(state)
    return lambda: link.set(LinkState.FLOWS)


def _empty_redis(arena: Arena, _: str, __: random.Random) -> Heal | None:
    try:
        with redis.Redis.from_url(arena.stack.plan.redis_url) as connection:
            connection.flushall()
    except redis.RedisError:
        return None
    return _nothing


def _fill_disk(arena: Arena, _: str, __: random.Random) -> Heal | None:
    filler = arena.stack.plan.layout.artifacts / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    return lambda: filler.unlink(missing_ok=True)


def _damage_checkpoint(arena: Arena, _: str, generator: random.Random) -> Heal | None:
    """Cuts a checkpoint of a trial that is not finished short, or deletes it."""
    query = (
        "SELECT t.checkpoint->>'artifact' FROM trials t WHERE t.state IN ('RUNNING', 'QUEUED') "
        "AND t.checkpoint IS NOT NULL ORDER BY 1"
    )
    try:
        found = [arena.stack.plan.layout.artifacts / str(row[0]) for row in arena.rows(query)]
    except Exception:  # noqa: BLE001 - Postgres may be down just now
        return None
    if not found:
        return None
    path: Path = generator.choice(found)
    with suppress(OSError):
        if generator.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-100])
        return _nothing
    return None


def _pause(arena: Arena, _: str, generator: random.Random) -> Heal | None:
    try:
        open_ones = [one for one in arena.client.experiments.list() if one.state == "RUNNING" and one.info.network]
        if not open_ones:
            return None
        experiment = generator.choice(open_ones).pause()
    except ForetuneError:
        return None

    def resume() -> None:
        # Its running trials may have been the last ones: then it has ended, and cannot be resumed.
        with suppress(ForetuneError):
            experiment.resume()

    return resume


def _nothing() -> None:
    """Nothing has to be done for its end."""


_LINKS_TO_POSTGRES = tuple(f"{worker} to postgres" for worker in WORKERS)
_LINKS_TO_REDIS = tuple(f"{worker} to redis" for worker in WORKERS)
_SHORT, _LONG = (0.5, 0.8 * LEASE_S), (1.3 * LEASE_S, 2.0 * LEASE_S)

KINDS = (
    Kind("worker killed", _kill, (1.0, 2.0), WORKERS),
    Kind("pool process killed", _kill_pool, (0.0, 0.0), WORKERS, weight=4),
    Kind("worker asked to stop", _stop, (0.2, 1.0), WORKERS),
    Kind("pool process hung beyond its lease", _hang_pool, _LONG, WORKERS),
    Kind("API killed", _kill, (0.2, 1.0), ("api",)),
    Kind("beat killed", _kill, (0.2, 1.0), ("beat",)),
    Kind("desk killed", _kill, (0.2, 1.0), ("desk",)),
    Kind("Redis killed", _kill, (0.2, 1.0), ("redis",)),
    Kind("Redis hung", _hang, (0.5, 3.0), ("redis",), weight=1),
    Kind("Redis emptied", _empty_redis, (0.0, 0.0), ("redis",)),
    Kind("Postgres killed", _kill, (0.2, 1.0), ("postgres",)),
    Kind("Postgres backend killed", _kill_backend, (0.0, 0.0), ("postgres",), weight=1),
    Kind("link to Postgres cut", _cut, _SHORT, _LINKS_TO_POSTGRES),
    Kind("link to Postgres cut beyond the lease", _cut, _LONG, _LINKS_TO_POSTGRES),
    Kind("link to Postgres silent beyond the lease", _silence, _LONG, _LINKS_TO_POSTGRES),
    Kind("link to Redis cut", _cut, (0.5, 4.0), _LINKS_TO_REDIS, weight=1),
    Kind("link to Redis silent", _silence, (0.5, 4.0), _LINKS_TO_REDIS, weight=1),
    Kind("disk of artifacts full", _fill_disk, (1.0, 4.0), ("artifacts",)),
    Kind("checkpoint lost or damaged", _damage_checkpoint, (0.0, 0.0), ("artifacts",)),
    Kind("experiment paused and resumed", _pause, (0.5, 2.0), ("API",), weight=4),
)
