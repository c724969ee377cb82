"""Processes that die, hang and come back while jobs run: nothing measured is lost, nothing happens twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import redis

from foretune.client import Experiment
from foretune.errors import ForetuneError
from foretune.events import Event, EventType

if TYPE_CHECKING:
    from tests.faults.conftest import Curve, Live

WholeLog = Callable[[Sequence[Event]], None]
PATIENCE_S = 100.0


class Listener:
    """Reads an experiment's events in a thread, as a person's terminal would."""

    def __init__(self, live: Live, experiment: Experiment) -> None:
        self.events: list[Event] = []
        self.interruptions: list[ForetuneError] = []
        self.raised: BaseException | None = None
        self._live, self._experiment = live, experiment
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for event in self._live.client.stream(self._experiment.id, on_interruption=self.interruptions.append):
                self.events.append(event)
        except BaseException as error:  # noqa: BLE001 - raised again in `finish`
            self.raised = error

    def wait_for(self, kind: EventType, count: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while sum(event.type is kind for event in self.events) < count:
            assert time.monotonic() < deadline, f"{count} x {kind} not within {PATIENCE_S:g} s"
            assert self._thread.is_alive(), self.raised
            time.sleep(0.005)

    def finish(self) -> list[Event]:
        """Everything until the experiment's end."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the stream did not end"
        if self.raised is not None:
            raise self.raised
        return self.events


class TestWorkers:
    @pytest.mark.parametrize("victim", ["pool", pytest.param("main", marks=pytest.mark.slow)])
    def test_killed_in_the_middle_of_an_epoch(
        self, live: Live, undisturbed: list[Curve], whole_log: WholeLog, victim: str
    ) -> None:
        """Given kill -9 of the process that trains, or of its parent, the result is the undisturbed one."""
        experiment = live.submit()
        listener = Listener(live, experiment)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 4)
        os.kill(live.pool_pid("train-1") if victim == "pool" else live.pid("train-1"), signal.SIGKILL)
        events = listener.finish()
        whole_log(events)
        assert sum(event.type is EventType.WORKER_LOST for event in events) == 1
        assert experiment.refresh().state == "COMPLETED"
        assert live.curves(experiment) == undisturbed
        assert sum(trial.attempts for trial in experiment.list_trials()) >= 3

    def test_asked_to_stop_in_the_middle(self, live: Live, undisturbed: list[Curve], whole_log: WholeLog) -> None:
        """Given a deployment stops the worker with SIGTERM, it hands back; no lease has to run out."""
        experiment = live.submit()
        listener = Listener(live, experiment)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 4)
        live.stop("train-1")
        listener.wait_for(EventType.TRIAL_STATE)
        waiting = experiment.refresh().info
        assert (waiting.state, waiting.progress.trials.get("QUEUED")) == ("RUNNING", 1)
        live.resume("train-1")
        events = listener.finish()
        whole_log(events)
        assert not any(event.type is EventType.WORKER_LOST for event in events)
        assert live.curves(experiment) == undisturbed

    def test_hung_for_longer_than_its_lease(self, live: Live, undisturbed: list[Curve], whole_log: WholeLog) -> None:
        """Given a worker sleeps for a while, what it sends when it wakes is refused, and no trial is doubled."""
        experiment = live.submit()
        listener = Listener(live, experiment)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 4)
        pool = live.pool_pid("train-1")
        os.kill(pool, signal.SIGSTOP)
        listener.wait_for(EventType.WORKER_LOST)
        os.kill(pool, signal.SIGCONT)
        events = listener.finish()
        whole_log(events)
        assert live.curves(experiment) == undisturbed

    def test_torch_is_in_the_fork_alone(self, live: Live) -> None:
        """CUDA does not survive a fork of a process that has used it."""
        main, pool = (Path(f"/proc/{pid}") for pid in (live.pid("train-1"), live.pool_pid("train-1")))
        assert (pool / "cmdline").read_bytes() == (main / "cmdline").read_bytes()
        assert b"libtorch" in (pool / "maps").read_bytes()
        assert b"libtorch" not in (main / "maps").read_bytes()

    def test_stopped_they_are_missed_at_once(self, live: Live) -> None:
        live.stop("desk", "train-1")
        answer = live.http.get("/readyz")
        assert (answer.status_code, answer.json()["parts"]["workers"][:13]) == (503, "none was seen")
        live.resume("desk", "train-1")
        live.wait_until_ready()

    def test_a_desk_that_dies_leaves_clients_with_fallbacks(self, live: Live) -> None:
        experiment = live.external()
        live.stop("desk")
        asked = time.monotonic()
        (trial,) = experiment.ask_many(1, wait_s=0.5)
        assert time.monotonic() - asked < 20
        assert trial.origin == "fallback"
        trial.complete(0.5)
        live.resume("desk")
        live.wait_until_ready()
        wait_until(lambda: experiment.ask(wait_s=5.0).origin != "fallback")


class TestRedis:
    @pytest.mark.parametrize(
        ("fault", "seconds"),
        [
            ("frozen", 3.0),
            ("killed", 3.0),
            pytest.param("frozen", 20.0, marks=pytest.mark.slow),
            pytest.param("killed", 20.0, marks=pytest.mark.slow),
        ],
    )
    def test_away_for_a_while(
        self, live: Live, undisturbed: list[Curve], whole_log: WholeLog, fault: str, seconds: float
    ) -> None:
        """Given Redis is away, everything that was promised still happens; what it rang for comes late."""
        running, external = live.submit(), live.external()
        listener = Listener(live, running)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 2)
        with redis_away(live, fault):
            until = time.monotonic() + seconds
            submitted = live.submit(budget={"max_trials": 1, "max_epochs": 2})
            rounds = 0
            while time.monotonic() < until or not rounds:
                begun = time.monotonic()
                (trial,) = external.ask_many(1, wait_s=0.2)
                trial.report(1, 0.5)
                trial.complete(0.75)
                rounds += 1
                assert time.monotonic() - begun < 15, "a call must not hang because Redis does"
        events = listener.finish()
        whole_log(events)
        assert live.curves(running) == undisturbed
        assert submitted.wait(timeout_s=PATIENCE_S).state == "COMPLETED"
        assert [trial.value for trial in external.list_trials()] == [0.75] * rounds

    def test_emptied_it_costs_nothing(self, live: Live, undisturbed: list[Curve]) -> None:
        """Given Redis loses all it held, upkeep rings again."""
        live.kill("train-1", signal.SIGSTOP)
        experiment = live.submit()
        with redis.Redis.from_url(live.stack.plan.redis_url) as connection:
            connection.flushall()
        live.kill("train-1", signal.SIGCONT)
        assert experiment.wait(timeout_s=PATIENCE_S).state == "COMPLETED"
        assert live.curves(experiment) == undisturbed


class TestPostgres:
    @pytest.mark.parametrize("fault", ["stopped", "killed"])
    def test_restarted_while_everything_runs(
        self, live: Live, undisturbed: list[Curve], whole_log: WholeLog, fault: str
    ) -> None:
        """Given Postgres restarts, clients wait it out, and what was acknowledged is there."""
        running, external = live.submit(), live.external()
        listener = Listener(live, running)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 2)
        (trial,) = external.ask_many(1, wait_s=0)
        if fault == "stopped":
            live.stop("postgres")
            answer = live.http.get(f"/v1/experiments/{external.id}")
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "database_away"
            assert "retry-after" in answer.headers
            live.resume("postgres")
        else:
            live.kill("postgres")
        trial.report(1, 0.25)
        trial.complete(0.5)
        whole_log(listener.finish())
        assert live.curves(running) == undisturbed
        (told,) = external.list_trials()
        assert (told.value, told.best_value, told.epochs) == (0.5, 0.5, 1)


class TestApi:
    @pytest.mark.parametrize("fault", ["stopped", "killed"])
    def test_restarted_while_a_client_streams(
        self, live: Live, undisturbed: list[Curve], whole_log: WholeLog, fault: str
    ) -> None:
        """Given the API goes away in the middle of a stream, the client goes on without a gap or a repeat."""
        experiment = live.submit()
        listener = Listener(live, experiment)
        listener.wait_for(EventType.TRIAL_MEASUREMENT, 3)
        if fault == "stopped":
            live.stop("api")
            live.resume("api")
        else:
            live.kill("api")
        whole_log(listener.finish())
        assert listener.interruptions or fault == "stopped"
        assert live.curves(experiment) == undisturbed

    def test_a_call_in_the_middle_of_a_restart_is_answered(self, live: Live) -> None:
        """Given a client submits while the API restarts, there is one experiment, not none and not two."""
        before = {experiment.id for experiment in live.client.experiments.list()}
        live.kill("api")
        made = live.external(name="during-the-restart")
        after = {experiment.id for experiment in live.client.experiments.list()}
        assert after - before == {made.id}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_dies_again_and_again(live: Live, undisturbed: list[Curve], whole_log: WholeLog) -> None:
    """Given kill -9 of one process after another while a job and a client work, both end as if nothing was."""
    running, external = live.submit(), live.external()
    listener = Listener(live, running)
    told: list[tuple[str, float]] = []
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            for trial in external.ask_many(1, wait_s=0.1):
                number += 1
                trial.complete(float(number))
                told.append((trial.id, float(number)))

    worker = threading.Thread(target=work)
    worker.start()
    for victim in ("api", "desk", "redis", "postgres", "beat", "train-1", "postgres", "api"):
        live.kill(victim)
        time.sleep(1.0)
        live.wait_until_ready()
    over.set()
    worker.join(PATIENCE_S)
    whole_log(listener.finish())
    assert live.curves(running) == undisturbed
    values = {trial.id: trial.value for trial in external.list_trials()}
    assert told
    assert all(values[trial_id] == value for trial_id, value in told), "what was acknowledged is there"


@contextmanager
def redis_away(live: Live, fault: str) -> Iterator[None]:
    if fault == "frozen":
        live.kill("redis", signal.SIGSTOP)
        try:
            yield
        finally:
            live.kill("redis", signal.SIGCONT)
        return
    live.stop("redis")
    try:
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            live.http.get("/readyz").raise_for_status()
        yield
    finally:
        live.resume("redis")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
