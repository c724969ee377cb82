"""Keeps child processes running: starts them, restarts what dies, stops all in order.

One thread, owned by the supervisor, starts every child and lives until the last has ended: Linux ties a
child's parent-death signal to the *thread* that started it. Other threads ask through a queue.

    STARTING -> READY -> (dies) -> WAITING -> STARTING ...
                  any state -> STOPPED    stopped on purpose, or not to be restarted
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.embedded.child import CRASH_LOOP_FAILURES, Child, ChildEvent, ChildEventKind, ChildState, how_it_ended
from service.embedded.faults import StackError, StackFault
from service.embedded.processes import identify, kill_session, write_pid_file
from service.embedded.spawning import (
    ChildSpec,
    ForkServer,
    ForkServerGone,
    Process,
    fork_server_is_supported,
    spawn,
)

_BUSY_POLL_S = 0.01
_IDLE_POLL_S = 0.2


def _ignore(event: ChildEvent) -> None:
    """The default listener."""


@dataclass
class Supervisor:
    """Starts and watches children. `run_folder` receives a NAME.pid for each.

    `on_event` is called from the supervisor's thread and must not call back into the supervisor.
    """

    run_folder: Path
    on_event: Callable[[ChildEvent], None] = _ignore
    _children: dict[str, Child] = field(default_factory=dict)
    _requests: queue.SimpleQueue[Callable[[], None] | None] = field(default_factory=queue.SimpleQueue)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _hurry: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _fork_server: ForkServer | None = None

    def preload(self, spec: ChildSpec) -> None:
        """Start the fork server that `spec` describes: Python children that are started later are forked off it.

        They wait until it is ready. Where fork servers are not supported, or when it ends, they start by themselves.
        """
        if fork_server_is_supported():
            self._ask(lambda: self._start_fork_server(spec))

    def start(self, *specs: ChildSpec) -> None:
        """Start children, in this order, without waiting for them. A name may be used once."""
        self._ask(lambda: self._add(specs))

    def wait_ready(self, *names: str, timeout_s: float) -> None:
        """Wait until the named children are ready.

        Raises `StackError(CHILD_FAILED)` with the last log lines when one crashes again and again or stopped
        for good, `StackError(NOT_READY)` when `timeout_s` pass.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                children = [self._children[name] for name in names]
                for child in children:
                    if child.state is ChildState.STOPPED or child.is_looping:
                        raise StackError(StackFault.CHILD_FAILED, child.last_words())
                if all(child.state is ChildState.READY for child in children):
                    return
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    late = next(child for child in children if child.state is not ChildState.READY)
                    raise StackError(
                        StackFault.NOT_READY,
                        f"{late.spec.name} was not ready after {timeout_s:.0f} s; its log is {late.spec.log}"
                        f"{late.quoted_log()}",
                    )
                self._changed.wait(min(remaining, 1.0))

    def names(self) -> list[str]:
        """The names of all children, in the order of their start."""
        with self._changed:
            return list(self._children)

    def raise_for_crash_loop(self) -> None:
        """Raises `StackError(CHILD_FAILED)` with the last log lines when any child crashes again and again."""
        with self._changed:
            for child in self._children.values():
                if child.is_looping:
                    raise StackError(StackFault.CHILD_FAILED, child.last_words())

    def state(self, name: str) -> ChildState:
        """Where child `name` stands."""
        with self._changed:
            return self._children[name].state

    def pid(self, name: str) -> int | None:
        """The pid of child `name`, or None while it does not run."""
        with self._changed:
            process = self._children[name].process
            return None if process is None else process.pid

    def stop(self, *names: str) -> None:
        """Stop the named children (all, when none is named), higher stages first, and wait for their end."""
        if self._thread is not None:
            self._ask(lambda: self._stop(names))

    def resume(self, *names: str) -> None:
        """Start the named children again after `stop`."""
        self._ask(lambda: self._resume(names))

    def close(self) -> None:
        """Stop all children and the supervisor itself. Safe to call twice.

        A KeyboardInterrupt meanwhile is taken as "hurry": whatever still runs is killed, and `close` ends normally.
        """
        while self._thread is not None and self._thread.is_alive():
            try:
                self.stop()
                self._requests.put(None)
                self._thread.join()
            except KeyboardInterrupt:
                self.hurry()

    def hurry(self) -> None:
        """Let a `stop` under way wait no longer: whatever still runs is killed. Safe in a signal handler."""
        self._hurry.set()

    # The rest runs in the supervisor's thread.

    def _ask(self, action: Callable[[], None]) -> None:
        if self._thread is None:
            # A daemon: when the program ends without `stop`, the thread's death ends the children.
            self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
            self._thread.start()
        done: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
                done.set_exception(error)
            else:
                done.set_result(None)

        self._requests.put(run)
        while True:
            try:
                return done.result(timeout=1.0)
            except TimeoutError:
                if done.done() or self._thread is None or not self._thread.is_alive():
                    raise

    def _loop(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=_BUSY_POLL_S if self._is_busy() else _IDLE_POLL_S)
            except queue.Empty:
                pass
            else:
                if request is None:
                    self._stop_fork_server()
                    return
                request()
            for child in list(self._children.values()):
                self._look_at(child)

    def _is_busy(self) -> bool:
        """Whether something is about to change."""
        now = time.monotonic()
        return any(
            child.state is ChildState.STARTING or (child.state is ChildState.WAITING and child.restart_at <= now)
            for child in self._children.values()
        )

    def _start_fork_server(self, spec: ChildSpec) -> None:
        with suppress(OSError):
            self._fork_server = ForkServer(spec, self.run_folder)

    def _stop_fork_server(self) -> None:
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def _add(self, specs: Sequence[ChildSpec]) -> None:
        for spec in specs:
            if spec.name in self._children:
                raise ValueError(f"a child named {spec.name!r} exists already")
            child = Child(spec)
            with self._changed:
                self._children[spec.name] = child
            self._launch(child)

    def _launch(self, child: Child) -> None:
        spec = child.spec
        with suppress(OSError):
            child.log_start_byte = spec.log.stat().st_size
        child.started = time.monotonic()
        try:
            if spec.before_start is not None:
                spec.before_start()
            process = self._fork_or_spawn(spec)
        except OSError as error:
            self._mark_dead(child, f"{spec.name} could not be started: {error}")
            return
        if process is None:
            # It comes up at the next look: the fork server still imports.
            child.restart_at = child.started
            self._move(child, ChildState.WAITING)
            return
        with self._changed:
            child.process = process
        self._move(child, ChildState.STARTING)
        identity = identify(process.pid, spec.stop_signal)
        if identity is not None:
            write_pid_file(self._pid_file(spec), identity)
        if spec.ready is None:
            self._move(child, ChildState.READY)

    def _fork_or_spawn(self, spec: ChildSpec) -> Process | None:
        """Start `spec` in the quickest way there is; None while the fork server is not ready. Raises OSError."""
        if spec.gated is not None and self._fork_server is not None:
            try:
                return self._fork_server.fork(spec) if self._fork_server.is_ready() else None
            except ForkServerGone:
                self._stop_fork_server()
        return spawn(spec, self.run_folder)

    def _look_at(self, child: Child) -> None:
        if child.state is ChildState.WAITING and time.monotonic() >= child.restart_at:
            self._launch(child)
        elif child.process is not None and child.process.has_ended():
            self._bury(child)
        elif child.state is ChildState.STARTING and child.process is not None:
            ready = child.spec.ready
            if ready is None or ready(child.process.pid):
                self._move(child, ChildState.READY)
                self.on_event(ChildEvent(ChildEventKind.READY, child.spec.name, f"{child.spec.name} is ready"))

    def _bury(self, child: Child) -> None:
        """The child ended by itself: end what it left running, then plan its restart."""
        assert child.process is not None
        # Before it is reaped, its pid cannot belong to anyone else.
        kill_session(child.process.pid)
        status = child.process.wait()
        self._pid_file(child.spec).unlink(missing_ok=True)
        self._mark_dead(child, f"{child.spec.name} {how_it_ended(status)}")

    def _mark_dead(self, child: Child, sentence: str) -> None:
        with self._changed:
            child.process = None
            child.ended_with = sentence
            back_off_s = child.count_failure(time.monotonic())
            child.restart_at = time.monotonic() + back_off_s
        self._move(child, ChildState.WAITING if child.spec.restart else ChildState.STOPPED)
        if child.failures == CRASH_LOOP_FAILURES:
            self.on_event(ChildEvent(ChildEventKind.CRASH_LOOP, child.spec.name, child.last_words()))
        else:
            then = f"; starting it again in {back_off_s:.3g} s" if child.spec.restart else ""
            self.on_event(ChildEvent(ChildEventKind.DIED, child.spec.name, sentence + then))

    def _stop(self, names: Sequence[str]) -> None:
        chosen = [child for child in self._children.values() if not names or child.spec.name in names]
        for stage in sorted({child.spec.stage for child in chosen}, reverse=True):
            self._stop_together([child for child in chosen if child.spec.stage == stage])

    def _stop_together(self, children: list[Child]) -> None:
        running: list[tuple[Child, Process]] = []
        for child in children:
            if child.process is not None:
                running.append((child, child.process))
                with suppress(ProcessLookupError):
                    os.kill(child.process.pid, child.spec.stop_signal)
            self._move(child, ChildState.STOPPED)
        begun = time.monotonic()
        while running:
            for child, process in list(running):
                waited_s = time.monotonic() - begun
                if self._hurry.is_set() or waited_s > child.spec.stop_timeout_s:
                    kill_session(process.pid)
                if process.has_ended():
                    kill_session(process.pid)
                    process.wait()
                    self._pid_file(child.spec).unlink(missing_ok=True)
                    with self._changed:
                        child.process = None
                    running.remove((child, process))
            if running:
                self._hurry.wait(_BUSY_POLL_S) if not self._hurry.is_set() else time.sleep(_BUSY_POLL_S)

    def _resume(self, names: Sequence[str]) -> None:
        for name in names:
            child = self._children[name]
            if child.process is None:
                child.failures = 0
                self._launch(child)

    def _move(self, child: Child, state: ChildState) -> None:
        with self._changed:
            child.state = state
            self._changed.notify_all()

    def _pid_file(self, spec: ChildSpec) -> Path:
        return self.run_folder / f"{spec.name}.pid"
