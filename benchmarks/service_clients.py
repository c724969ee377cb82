"""Client processes that ask and tell together. They start once and serve every run, so that imports cost no run."""

from __future__ import annotations

import multiprocessing
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol, Self

_ANSWER_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Asked:
    """How one ask went, and what was told in the same call, where one call does both.

    `by_model` False: the model did not answer in time, and a stand-in was used.
    """

    seconds: float
    by_model: bool


class Session(Protocol):
    """One client's connection to a service."""

    def one_trial(self, reports: int, *, another: bool = False) -> Asked:
        """Asks, reports the first `reports` epochs, tells. `another`: one more trial follows at once."""

    def close(self) -> None:
        """Lets go of all connections."""


class Service(Protocol):
    """An experiment of a service, as client processes are told about it: picklable."""

    def connect(self) -> Session:
        """Joins the experiment."""


@dataclass(frozen=True)
class Load:
    """What the clients of one run do together."""

    clients: int
    trials: int
    """In all; the clients share them."""
    longest_s: float
    """No trial begins after this time."""
    reports: int
    """Measurements a trial."""


@dataclass(frozen=True)
class ClientRun:
    """What one client did. Times are on the machine's monotonic clock."""

    started: float
    finished: float
    cpu_s: float
    asked: list[Asked]


class Clients:
    """`count` processes; use it as a context manager."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Shared by inheritance, which is the only way in which such a counter travels.
        self._tickets = context.Value("q", 0)
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._tickets), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10.0)

    def join(self, service: Service, load: Load) -> None:
        """Lets the clients of `load` join and do one trial each, unmeasured. Raises what a client raised."""
        chosen = self._pipes[: load.clients]
        for pipe in chosen:
            pipe.send((service, load))
        for pipe in chosen:
            _answer(pipe)

    def go(self, load: Load) -> list[ClientRun]:
        """Starts those that joined together, and waits for the end of the run. Raises what a client raised."""
        chosen = self._pipes[: load.clients]
        self._tickets.value = load.trials
        for pipe in chosen:
            pipe.send("go")
        runs = []
        for pipe in chosen:
            run = _answer(pipe)
            assert isinstance(run, ClientRun)
            runs.append(run)
        return runs


def _answer(pipe: Connection) -> object:
    if not pipe.poll(_ANSWER_TIMEOUT_S):
        raise TimeoutError(f"a client did not answer within {_ANSWER_TIMEOUT_S:.0f} s")
    answer = pipe.recv()
    if isinstance(answer, BaseException):
        raise answer
    return answer


class _Counter(Protocol):
    """A number that processes share, as multiprocessing makes it."""

    value: int

    def get_lock(self) -> object: ...


def _serve(pipe: Connection, tickets: _Counter) -> None:
    while True:
        try:
            service, load = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            session = service.connect()
            try:
                session.one_trial(load.reports)
                pipe.send("ready")
                pipe.recv()
                run = _work(session, load, tickets)
            finally:
                session.close()
            pipe.send(run)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asked for the run
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _work(session: Session, load: Load, tickets: _Counter) -> ClientRun:
    cpu, started = _cpu_s(), time.monotonic()
    asked: list[Asked] = []
    goes_on = _take(tickets)
    while goes_on:
        goes_on = time.monotonic() - started < load.longest_s and _take(tickets)
        asked.append(session.one_trial(load.reports, another=goes_on))
    return ClientRun(started, time.monotonic(), _cpu_s() - cpu, asked)


def _take(tickets: _Counter) -> bool:
    with tickets.get_lock():  # type: ignore[attr-defined]
        tickets.value -= 1
        return tickets.value >= 0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
