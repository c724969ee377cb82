"""A desk that answers calls over a real bus, from a real database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import redis

from foretune.json_types import JsonObject
from foretune.states import TrialState
from foretune.wire.experiments import ExperimentRequest
from service.artifacts import ArtifactStore
from service.bus import Bus
from service.bus.names import CALLS
from service.db.session import Database
from service.usecases import experiments
from service.usecases.proposals import ToldEnding
from tests.conftest import Project
from tests.service.usecases.conftest import World
from workers.desk import Desk
from workers.process import WorkerProcess
from workers.proposals import Proposals

SPACE = [{"name": "x", "type": "float", "low": 0.0, "high": 1.0}, {"name": "n", "type": "int", "low": 1, "high": 9}]


@pytest.fixture
def experiment(database: Database, bus: Bus, project: Project) -> str:
    request = ExperimentRequest.model_validate(
        {
            "mode": "external",
            "space": SPACE,
            "metric": {"name": "loss", "goal": "minimize"},
            "budget": {"max_trials": 50},
        }
    )
    with database.transaction() as tx:
        return experiments.submit(tx, bus, project.id, request).id


@pytest.fixture
def desk(database: Database, bus: Bus, artifacts: ArtifactStore, experiment: str) -> Iterator[Desk]:
    process = WorkerProcess(id="wrk_test", database=database, bus=Bus(bus.redis_url), artifacts=artifacts)
    made = Desk(process)
    yield made
    process.stopping.set()
    for thread in threading.enumerate():
        if thread.name == "desk":
            thread.join()  # or it would take the next test's calls


async def _until_waiting(bus: Bus, calls: int) -> None:
    while bus.calls_waiting() < calls:  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(0.01)


def _proposals(answer: JsonObject | None) -> list[JsonObject]:
    assert answer is not None
    found = answer["proposals"]
    assert isinstance(found, list)
    return [one for one in found if isinstance(one, dict)]


def test_calls_of_one_experiment_are_answered_together_and_share_nothing(
    bus: Bus, desk: Desk, experiment: str, runner: asyncio.Runner
) -> None:
    async def ask() -> list[JsonObject | None]:
        # Given three calls that wait before the desk opens
        calls = [
            asyncio.create_task(bus.call("propose", {"experiment": experiment, "count": count}, 60.0))
            for count in (1, 3, 2)
        ]
        await _until_waiting(bus, 3)
        desk.start()
        return list(await asyncio.gather(*calls))

    # When it answers them
    answers = [_proposals(answer) for answer in runner.run(ask())]
    # Then each has as many as it asked for, and all of them are different trials to come
    assert [len(found) for found in answers] == [1, 3, 2]
    indices = [one["replay"]["index"] for found in answers for one in found]
    assert indices == list(range(6))
    settings = {str(one["configuration"]) for found in answers for one in found}
    assert len(settings) == 6


def test_a_call_that_fails_spoils_no_other(bus: Bus, desk: Desk, experiment: str, runner: asyncio.Runner) -> None:
    """And nobody waits until the deadline for an answer that will not come."""

    async def ask() -> list[JsonObject | None]:
        payloads: list[tuple[str, JsonObject]] = [
            ("propose", {"experiment": "exp_unknown", "count": 1}),
            ("propose", {"experiment": "exp_malformed"}),
            ("nonsense", {}),
            ("propose", {"experiment": experiment, "count": 1}),
        ]
        calls = [asyncio.create_task(bus.call(kind, payload, 60.0)) for kind, payload in payloads]
        await _until_waiting(bus, len(payloads))
        desk.start()
        async with asyncio.timeout(30.0):
            return list(await asyncio.gather(*calls))

    unknown, malformed, nonsense, good = runner.run(ask())
    assert (unknown, malformed, nonsense) == (None, None, None)
    assert len(_proposals(good)) == 1


def test_an_experiment_that_takes_long_holds_up_no_other(
    database: Database,
    bus: Bus,
    desk: Desk,
    experiment: str,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given one experiment whose history is still being read, another one's client is answered meanwhile."""
    read, reading, go_on = Proposals._read, threading.Event(), threading.Event()

    def read_slowly(self: Proposals, experiment_id: str, *, curves: bool) -> object:
        if experiment_id == "exp_slow":
            reading.set()
            go_on.wait(30.0)
        return read(self, experiment_id, curves=curves)

    monkeypatch.setattr(Proposals, "_read", read_slowly)

    async def ask() -> JsonObject | None:
        desk.start()
        slow = asyncio.create_task(bus.call("propose", {"experiment": "exp_slow", "count": 1}, 30.0))
        await asyncio.to_thread(reading.wait, 30.0)
        answer = await bus.call("propose", {"experiment": experiment, "count": 1}, 20.0)
        assert not slow.done()
        go_on.set()
        await slow
        return answer

    assert len(_proposals(runner.run(ask()))) == 1


def test_what_nobody_can_read_spoils_nothing(bus: Bus, desk: Desk, experiment: str, runner: asyncio.Runner) -> None:
    """Given something else lies among the calls, the desk goes on with the next one."""
    with redis.Redis.from_url(bus.redis_url) as connection:
        for text in (b"not json", b"[]", b'{"id": 1}'):
            connection.rpush(CALLS, text)
    desk.start()
    asked = bus.call("propose", {"experiment": experiment, "count": 1}, 20.0)
    assert len(_proposals(runner.run(asked))) == 1


def test_an_ending_that_a_call_tells_of_has_been_seen(
    world: World, bus: Bus, desk: Desk, experiment: str, runner: asyncio.Runner
) -> None:
    (trial,) = world.ask(experiment)
    told = ToldEnding(trial.id, TrialState.COMPLETED, 0.5).to_json()

    async def ask() -> JsonObject | None:
        desk.start()
        return await bus.call("propose", {"experiment": experiment, "count": 1, "told": told}, 60.0)

    (made,) = _proposals(runner.run(ask()))
    assert (made["replay"]["told"], made["replay"]["seen_results"]) == ([trial.id], 1)  # type: ignore[index,call-overload]
